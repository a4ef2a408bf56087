import { describe, expect, test } from "bun:test";
import { onDestinationEvent } from "../../../migrate/live/handover/destination-handover.ts";
import { onSourceEvent, sourceStart } from "../../../migrate/live/handover/source-handover.ts";
import { takeUpDestination, takeUpSource } from "../../../migrate/live/handover/take-up.ts";
import { StateError } from "../../../src/errors.ts";
import { exploreHandover } from "../../support/explore-handover.ts";
import { type Machines, machines } from "../../support/handover-world.ts";

/** All that a move does that nothing happens to. */
test("a move that goes well: loaded, release, released, owner, resume, running, discard", () => {
  const sent = onSourceEvent(sourceStart, { type: "sent" });
  const loaded = onDestinationEvent({ name: "receiving", isEnded: false }, { type: "loaded" });
  expect(loaded.effects).toEqual([
    { do: "record", state: "loaded" },
    { do: "send", message: { type: "loaded" } },
  ]);
  const releasing = onSourceEvent(sent.state, { type: "message", message: { type: "loaded" } });
  expect(releasing.effects).toEqual([{ do: "record", state: "releasing" }, { do: "release" }]);
  const released = onSourceEvent(releasing.state, { type: "released" });
  expect(released.effects).toEqual([
    { do: "record", state: "released" },
    { do: "send", message: { type: "released" } },
  ]);
  const owner = onDestinationEvent(loaded.state, { type: "message", message: { type: "released" } });
  expect(owner.effects).toEqual([{ do: "record", state: "owner" }, { do: "resume" }]);
  const running = onDestinationEvent(owner.state, { type: "resumed" });
  expect(running.effects.slice(0, 2)).toEqual([
    { do: "record", state: "running" },
    { do: "send", message: { type: "running" } },
  ]);
  const moved = onSourceEvent(released.state, { type: "message", message: { type: "running" } });
  expect(moved.effects.slice(0, 2)).toEqual([{ do: "record", state: "moved" }, { do: "discard" }]);
});

test("never two, and never none without a line that leads to one: every state that a hand-over can come to", () => {
  const found = exploreHandover();
  // Fewer would mean that the exploration has lost steps. 20,059 when this was written.
  expect(found.states).toBeGreaterThan(20_000);
  expect(found.needOperator).toBeGreaterThan(1_000);
}, 120_000);

describe("the exploration sees what it is for", () => {
  const broken: readonly (readonly [string, Partial<Machines>, RegExp])[] = [
    [
      "the source takes it back although the destination may have it",
      {
        onSourceEvent: (state, event) =>
          state.name === "released" && event.type === "give-up"
            ? {
                state: { ...state, name: "kept", isEnded: true },
                effects: [{ do: "record", state: "kept" }, { do: "reclaim" }],
              }
            : onSourceEvent(state, event),
      },
      /two run it|no line leads on/,
    ],
    [
      "the source says released before that is on disk",
      {
        onSourceEvent: (state, event) => {
          const step = onSourceEvent(state, event);
          return step.state.name === "released" ? { ...step, effects: step.effects.toReversed() } : step;
        },
      },
      /two run it/,
    ],
    [
      "the destination lets it run before it has written that it is the owner",
      {
        onDestinationEvent: (state, event) => {
          const step = onDestinationEvent(state, event);
          return step.state.name === "owner" ? { ...step, effects: step.effects.toReversed() } : step;
        },
      },
      /two run it/,
    ],
    [
      "the source, taken up, believes that it is still its own",
      {
        takeUpSource: (name, machine, word) =>
          takeUpSource(name === "released" ? "releasing" : name, machine, word),
      },
      /two run it/,
    ],
    [
      "the destination, taken up, waits for ever",
      {
        takeUpDestination: (name, machine, word) =>
          name === "loaded"
            ? { state: { name, isEnded: false }, effects: [], line: "wait" }
            : takeUpDestination(name, machine, word),
      },
      /no line leads on/,
    ],
    [
      "a resume of what was released",
      {
        onSourceEvent: (state, event) =>
          state.name === "released" && event.type === "message" && event.message.type === "abandoned"
            ? { state: { ...state, name: "kept", isEnded: true }, effects: [{ do: "resume" }] }
            : onSourceEvent(state, event),
      },
      /released is resumed/,
    ],
  ];
  for (const [what, change, message] of broken) {
    test(what, () => {
      expect(() => exploreHandover({ ...machines, ...change })).toThrow(message);
    }, 120_000);
  }
});

test("a word that cannot be true is refused", () => {
  expect(() => takeUpDestination("loaded", "suspended", "moved")).toThrow(StateError);
});
