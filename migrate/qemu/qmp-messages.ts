import { z } from "zod";

/** The messages of a monitor, as far as every client needs them (QEMU docs/interop/qmp-spec.rst). */
const version = z.looseObject({
  qemu: z.object({
    major: z.number().int().min(0),
    minor: z.number().int().min(0),
    micro: z.number().int().min(0),
  }),
  package: z.string(),
});

export const qmpGreeting = z.looseObject({
  QMP: z.looseObject({ version, capabilities: z.array(z.string()) }),
});

const error = z.looseObject({ class: z.string(), desc: z.string() });
const timestamp = z.looseObject({ seconds: z.number(), microseconds: z.number() });

/** An answer, a refusal or an event. */
export const qmpMessage = z.union([
  z.looseObject({ return: z.unknown(), id: z.string() }).refine((answer) => "return" in answer),
  z.looseObject({ error, id: z.string().optional() }),
  z.looseObject({ event: z.string(), data: z.unknown().optional(), timestamp }),
]);

/** What a command answers that has nothing to say. */
export const qmpNothing = z.looseObject({});

export type QmpGreeting = z.infer<typeof qmpGreeting>["QMP"];

export interface QmpEvent {
  readonly name: string;
  readonly data: unknown;
  /** When it happened, in milliseconds since the epoch. */
  readonly atMs: number;
}
