import { VhuError } from "../../src/errors.ts";

/** QEMU refused a command. Exit status 5. */
export class QmpError extends VhuError {
  override readonly exitStatus = 5;
  /** The command that was refused. */
  readonly command: string;
  /** QEMU's class of the error, e.g. "CommandNotFound", "GenericError". */
  readonly errorClass: string;

  constructor(command: string, errorClass: string, description: string) {
    super("QMP", `QEMU refused ${command}: ${description}`, { details: { command, errorClass } });
    this.command = command;
    this.errorClass = errorClass;
  }
}
