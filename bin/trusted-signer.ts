import { TrustedKeys } from "../migrate/policy/mod.ts";
import { readSigner, type SnapshotReader } from "../migrate/snapshot/mod.ts";

/** The name of the trusted key that signed a snapshot, every byte of it checked. @throws FormatError for a wrong signature */
export function trustedSigner(reader: SnapshotReader): string | undefined {
  const signer = readSigner(reader);
  return signer === undefined ? undefined : new TrustedKeys().nameOf(signer.publicKey);
}
