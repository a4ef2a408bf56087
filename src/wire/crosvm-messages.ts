import { messages, negotiated, oneFd } from "./message.ts";
import * as p from "./payloads.ts";

/** What crosvm's back-ends send besides the spec's messages, then (2022) and now (2026). Always answered with a u64. */
export const crosvmBackendMessages = messages("backend", {
  GPU_MAP: {
    number: 1006,
    meaning: "Maps GPU memory, which the front-end imports through Vulkan, into a shared memory region.",
    payload: p.gpuMap,
    sizeBytes: 64,
    reply: p.value64,
    replySizeBytes: 8,
    fds: oneFd,
    gate: negotiated("SHMEM"),
  },
  EXTERNAL_MAP: {
    number: 1007,
    meaning: "Maps memory at an address that both sides know into a shared memory region.",
    payload: p.externalMap,
    sizeBytes: 32,
    reply: p.value64,
    replySizeBytes: 8,
    gate: negotiated("SHMEM"),
  },
});

/** How crosvm asked for shared memory regions from 2024-03 to 2025-12, before the spec had a message for it. */
export const crosvm2024FrontendMessages = messages("frontend", {
  GET_SHARED_MEMORY_REGIONS: {
    number: 1004,
    meaning: "Which shared memory regions the device has, as a list.",
    reply: p.crosvm2024Regions,
    // u64 count, then {u8 id, 7 bytes padding, u64 length} per region (crosvm, vmm_vhost/src/message.rs of 2024).
    // More than 255 regions would not fit in MAX_PAYLOAD_BYTES; crosvm's devices have one.
    replySizeBytes: [8, 8 + 16 * 255],
    gate: negotiated("SHMEM"),
  },
});

/** crosvm's mappings of the same time, which stand in for the spec's. Always answered with a u64. */
export const crosvm2024BackendMessages = messages("backend", {
  SHMEM_MAP: {
    number: 1000,
    meaning: "Maps an fd into a shared memory region.",
    payload: p.crosvm2024ShmemMap,
    sizeBytes: 32,
    reply: p.value64,
    replySizeBytes: 8,
    fds: oneFd,
    gate: negotiated("SHMEM"),
  },
  SHMEM_UNMAP: {
    number: 1001,
    meaning: "Unmaps one whole mapping of a shared memory region.",
    payload: p.crosvm2024ShmemUnmap,
    sizeBytes: 24,
    reply: p.value64,
    replySizeBytes: 8,
    gate: negotiated("SHMEM"),
  },
});
