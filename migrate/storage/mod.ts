/** The content of a machine's disks on its way to a host that does not have them. */

export { type NbdExport, NbdServer } from "./nbd-server.ts";
export {
  type ImageFormat,
  type ImageIdentity,
  type ImageOutline,
  NewImage,
  removeImage,
} from "./new-image.ts";
