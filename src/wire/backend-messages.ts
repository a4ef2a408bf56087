import { messages, negotiated, oneFd, optionalFd, virtio } from "./message.ts";
import * as p from "./payloads.ts";

/** Every request that a back-end sends over its own channel (vhost-user.rst, "Back-end message types"). */
export const backendMessages = messages("backend", {
  IOTLB_MSG: {
    number: 1,
    meaning: "Tells of an IOTLB miss or an access that was refused.",
    payload: p.iotlb,
    sizeBytes: 32,
    gate: virtio("ACCESS_PLATFORM", "negotiated"),
  },
  CONFIG_CHANGE_MSG: {
    number: 2,
    meaning: "Tells that the device's config space has changed.",
    gate: negotiated("CONFIG"),
  },
  VRING_HOST_NOTIFIER_MSG: {
    number: 3,
    meaning: "Sets the memory that takes a queue's notifications, or without an fd removes it.",
    payload: p.vringArea,
    sizeBytes: 24,
    fds: optionalFd,
    gate: negotiated("HOST_NOTIFIER", "BACKEND_SEND_FD"),
  },
  VRING_CALL: {
    number: 4,
    meaning: "Says in-band that buffers of a ring were used (num is 0).",
    payload: p.vringState,
    sizeBytes: 8,
    gate: negotiated("INBAND_NOTIFICATIONS"),
  },
  VRING_ERR: {
    number: 5,
    meaning: "Says in-band that a ring has failed (num is 0).",
    payload: p.vringState,
    sizeBytes: 8,
    gate: negotiated("INBAND_NOTIFICATIONS"),
  },
  SHARED_OBJECT_ADD: {
    number: 6,
    meaning: "Makes the sender the exporter of a shared object.",
    payload: p.sharedObject,
    sizeBytes: 16,
    gate: negotiated("SHARED_OBJECT"),
  },
  SHARED_OBJECT_REMOVE: {
    number: 7,
    meaning: "Withdraws a shared object; only its exporter may.",
    payload: p.sharedObject,
    sizeBytes: 16,
    gate: negotiated("SHARED_OBJECT"),
  },
  SHARED_OBJECT_LOOKUP: {
    number: 8,
    meaning: "Asks for the dma-buf of a shared object; 0 and an fd, or non-zero and none.",
    payload: p.sharedObject,
    sizeBytes: 16,
    reply: p.value64,
    replySizeBytes: 8,
    replyFds: optionalFd,
    gate: negotiated("SHARED_OBJECT"),
  },
  SHMEM_MAP: {
    number: 9,
    meaning: "Maps an fd into a free range of a shared memory region.",
    payload: p.mmap,
    sizeBytes: 40,
    fds: oneFd,
    gate: negotiated("SHMEM"),
  },
  SHMEM_UNMAP: {
    number: 10,
    meaning: "Unmaps one whole mapping of a shared memory region.",
    payload: p.mmap,
    sizeBytes: 40,
    gate: negotiated("SHMEM"),
  },
});
