/** A bound on what a device moves per period. */
export { ByteQuota, type QuotaState, type RateLimit } from "./byte-quota.ts";
