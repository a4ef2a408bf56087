import { PeerError, VhuError } from "../../src/errors.ts";
import { connectUnix, disposeAll, type Fd } from "../../src/sys/mod.ts";
import { ControlConnection } from "../control/mod.ts";
import { type ControlRequest, controlAnswer } from "./control-protocol.ts";

/** An error that the machine reported: its code and exit status are the machine's. */
class MachineError extends VhuError {
  override readonly exitStatus: number;
  constructor(error: { readonly code: string; readonly message: string; readonly exitStatus: number }) {
    super(error.code, error.message);
    this.exitStatus = error.exitStatus;
  }
}

export interface RequestOptions {
  readonly fds?: readonly Fd[];
  readonly signal?: AbortSignal | undefined;
  readonly timeoutMs?: number | undefined;
}

const DEFAULT_TIMEOUT_MS = 60_000;

/** Talks to a machine's control socket. */
export class ControlClient implements Disposable {
  readonly #connection: ControlConnection;
  #lastId = 0;

  private constructor(connection: ControlConnection) {
    this.#connection = connection;
  }

  /** @throws PeerError when no machine listens there */
  static connect(path: string): ControlClient {
    return new ControlClient(new ControlConnection(connectUnix(path)));
  }

  /** Process of the machine. */
  get pid(): number {
    return this.#connection.socket.peerCredentials().pid;
  }

  /** Sends a request and waits for its answer; fds of the answer are the caller's. */
  async request(
    request: ControlRequest,
    options: RequestOptions = {},
  ): Promise<{ result: unknown; fds: Fd[] }> {
    this.#lastId += 1;
    this.#connection.send({ ...request, id: this.#lastId }, options.fds);
    const { answer, fds } = await this.#answerTo(this.#lastId, options);
    if (!answer.ok) throw new MachineError(answer.error);
    return { result: answer.result, fds };
  }

  /**
   * Others may come before: of requests that were given up (a signal, a deadline), and a machine that waits for a back-end
   * answers what comes meanwhile first.
   */
  async #answerTo(id: number, { timeoutMs = DEFAULT_TIMEOUT_MS, signal }: RequestOptions) {
    for (;;) {
      const { body, fds } = await this.#connection.receiveAsync(timeoutMs, signal);
      const answer = controlAnswer.safeParse(body);
      if (answer.success && answer.data.id === id) return { answer: answer.data, fds };
      disposeAll(fds);
      if (!answer.success) throw new PeerError("the machine's answer is not one of vhu's control protocol");
    }
  }

  [Symbol.dispose](): void {
    this.#connection[Symbol.dispose]();
  }
}
