/** A file's key, wrapped: to age recipients and to passphrases (age-encryption.org/v1). Loaded when first used. */
import { CompatibilityError, UsageError } from "../../src/errors.ts";
import { FILE_KEY_BYTES } from "./file-cipher.ts";

/** One age file for all recipients, and one for each passphrase; each holds the file's key. */
export interface WrappedKey {
  readonly kind: "recipients" | "passphrase";
  /** How many can open it. */
  readonly count: number;
  /** Base64. */
  readonly age: string;
}

/** Who shall be able to read a file. */
export interface EncryptTo {
  /** "age1…" */
  readonly recipients?: readonly string[] | undefined;
  readonly passphrases?: readonly string[] | undefined;
}

/** With what to read it. */
export interface Credentials {
  /** "AGE-SECRET-KEY-1…" */
  readonly identities?: readonly string[] | undefined;
  readonly passphrases?: readonly string[] | undefined;
}

/** A new key, for one file. */
export interface NewFileKey {
  readonly key: Uint8Array;
  readonly wrapped: readonly WrappedKey[];
}

/** @throws UsageError for a recipient that is none */
export async function newFileKey({ recipients = [], passphrases = [] }: EncryptTo): Promise<NewFileKey> {
  if (recipients.length + passphrases.length === 0) throw new UsageError("nobody was named to encrypt to");
  const { Encrypter } = await import("age-encryption");
  const key = crypto.getRandomValues(new Uint8Array(FILE_KEY_BYTES));
  const wrapped: WrappedKey[] = [];
  const add = async (
    kind: WrappedKey["kind"],
    count: number,
    setUp: (age: InstanceType<typeof Encrypter>) => void,
  ) => {
    const age = new Encrypter();
    setUp(age);
    wrapped.push({ kind, count, age: Buffer.from(await age.encrypt(key)).toString("base64") });
  };
  if (recipients.length > 0) {
    await add("recipients", recipients.length, (age) => {
      for (const recipient of recipients) addRecipient(age, recipient);
    });
  }
  for (const passphrase of passphrases) await add("passphrase", 1, (age) => age.setPassphrase(passphrase));
  return { key, wrapped };
}

/** @throws CompatibilityError where none of the credentials fits */
export async function unwrapFileKey(
  wrapped: readonly WrappedKey[],
  credentials: Credentials,
): Promise<Uint8Array> {
  const { Decrypter } = await import("age-encryption");
  const { identities = [], passphrases = [] } = credentials;
  for (const { kind, age } of wrapped) {
    const offered = kind === "recipients" ? identities : passphrases;
    for (const credential of offered) {
      const decrypter = new Decrypter();
      if (kind === "recipients") addIdentity(decrypter, credential);
      else decrypter.addPassphrase(credential);
      const key = await decrypter.decrypt(Buffer.from(age, "base64")).catch(() => undefined);
      if (key?.length === FILE_KEY_BYTES) return key;
    }
  }
  const tried = identities.length + passphrases.length;
  throw new CompatibilityError(
    tried === 0
      ? `the snapshot is encrypted to ${describeKeys(wrapped)}: give --identity FILE or --passphrase-file FILE`
      : `none of the ${tried} keys and passphrases opens the snapshot; it is encrypted to ${describeKeys(wrapped)}`,
    {},
    tried === 0 ? "LOCKED" : "WRONG_KEY",
  );
}

/** "2 recipients and a passphrase". */
export function describeKeys(wrapped: readonly WrappedKey[]): string {
  const words = wrapped.map(({ kind, count }) =>
    kind === "passphrase" ? "a passphrase" : `${count} recipient${count === 1 ? "" : "s"}`,
  );
  return words.join(" and ");
}

function addRecipient(age: { addRecipient(recipient: string): void }, recipient: string): void {
  try {
    age.addRecipient(recipient);
  } catch (cause) {
    throw new UsageError(`"${recipient}" is no age recipient (age1…)`, { cause });
  }
}

function addIdentity(age: { addIdentity(identity: string): void }, identity: string): void {
  try {
    age.addIdentity(identity);
  } catch (cause) {
    throw new UsageError("an identity is no age key (AGE-SECRET-KEY-1…)", { cause });
  }
}
