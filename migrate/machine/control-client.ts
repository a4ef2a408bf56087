import { PeerError, VhuError } from "../../src/errors.ts";
import { connectUnix, type Fd } from "../../src/sys/mod.ts";
import { ControlConnection } from "./control-connection.ts";
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
    this.#connection.send(request, options.fds);
    const { body, fds } = await this.#connection.receiveAsync(
      options.timeoutMs ?? DEFAULT_TIMEOUT_MS,
      options.signal,
    );
    const answer = controlAnswer.safeParse(body);
    if (!answer.success) throw new PeerError("the machine's answer is not one of vhu's control protocol");
    if (!answer.data.ok) throw new MachineError(answer.data.error);
    return { result: answer.data.result, fds };
  }

  [Symbol.dispose](): void {
    this.#connection[Symbol.dispose]();
  }
}
