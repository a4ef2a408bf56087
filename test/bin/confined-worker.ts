import { readFileSync } from "node:fs";

/** Answers with what a thread of a confined process gets when it opens a file that is none of its business. */
declare const self: { postMessage(message: string): void };
let answer = "ok";
try {
  readFileSync("/etc/passwd");
} catch (error) {
  answer = (error as NodeJS.ErrnoException).code ?? "";
}
self.postMessage(answer);
