import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Certificates } from "../../migrate/live/mod.ts";

/** An authority of the tests' own, by the openssl command. */
export class TestAuthority {
  constructor(readonly folder: string) {
    this.#run("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", this.path("ca.key"));
    this.#run(
      "req",
      "-x509",
      "-new",
      "-key",
      this.path("ca.key"),
      "-subj",
      "/CN=ca",
      "-days",
      "2",
      "-out",
      this.path("ca.pem"),
    );
  }

  /** One line says what is missing. */
  static get isPossible(): boolean {
    if (Bun.which("openssl") !== null) return true;
    console.error("skipped, certificates for the tests need the openssl command: apt-get install openssl");
    return false;
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  /** For 127.0.0.1 and the given addresses; with negative days it has expired. */
  issue(name: string, days: number, addresses: readonly string[] = []): Certificates {
    const [key, request, cert, extensions] = ["key", "csr", "pem", "ext"].map((end) =>
      this.path(`${name}.${end}`),
    );
    const names = ["127.0.0.1", ...addresses].map((address) => `IP:${address}`);
    writeFileSync(extensions!, `subjectAltName=${names.join(",")}`);
    this.#run("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key!);
    this.#run("req", "-new", "-key", key!, "-subj", `/CN=${name}`, "-out", request!);
    const authority = ["-CA", this.path("ca.pem"), "-CAkey", this.path("ca.key"), "-CAcreateserial"];
    this.#run(
      "x509",
      "-req",
      "-in",
      request!,
      ...authority,
      "-out",
      cert!,
      "-days",
      `${days}`,
      "-extfile",
      extensions!,
    );
    return {
      cert: readFileSync(cert!, "utf8"),
      key: readFileSync(key!, "utf8"),
      ca: readFileSync(this.path("ca.pem"), "utf8"),
    };
  }

  #run(...words: string[]): void {
    const { exitCode, stderr } = Bun.spawnSync({ cmd: ["openssl", ...words] });
    if (exitCode !== 0) throw new Error(`openssl ${words.join(" ")}: ${stderr}`);
  }
}
