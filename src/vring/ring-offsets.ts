/**
 * Where everything lies in a ring and in the inflight region. Virtio 1.2, 2.7 (split) and 2.8 (packed); the vhost-user
 * spec, "Inflight I/O tracking". All little-endian, as both supported architectures are. Offsets are counted in units of
 * the view they are used with: BYTE (u8), HALF (u16), WORD (u32).
 */

export const DESCRIPTOR_BYTES = 16;
/** Descriptor, split and packed: u64 address, u32 length, then u16 flags + u16 next (split) or u16 id + u16 flags. */
export const DESCRIPTOR_WORDS = 4;
export const DESCRIPTOR_HALVES = 8;
export const WORD_ADDRESS_LOW = 0;
export const WORD_ADDRESS_HIGH = 1;
export const WORD_LENGTH = 2;
/** Split: flags in the low half, next in the high one. Packed: id in the low half, flags in the high one. */
export const WORD_LAST = 3;
export const HALF_PACKED_ID = 6;
export const HALF_PACKED_FLAGS = 7;

export const DESC_F_NEXT = 1;
export const DESC_F_WRITE = 2;
export const DESC_F_INDIRECT = 4;
export const DESC_F_AVAIL = 1 << 7;
export const DESC_F_USED = 1 << 15;

/** Addresses above 2^53 have a high word above this. */
export const MAX_ADDRESS_HIGH = 0x1fffff;

/** Available ring: u16 flags, u16 idx, u16 ring[size], then u16 used_event with EVENT_IDX. */
export const HALF_AVAILABLE_FLAGS = 0;
export const HALF_AVAILABLE_INDEX = 1;
export const HALF_AVAILABLE_RING = 2;
export const AVAIL_F_NO_INTERRUPT = 1;

/** Used ring: u16 flags, u16 idx, {u32 id, u32 len} ring[size], then u16 avail_event with EVENT_IDX. */
export const HALF_USED_FLAGS = 0;
export const HALF_USED_INDEX = 1;
export const USED_INDEX_BYTE = 2;
export const USED_RING_BYTE = 4;
export const USED_ELEMENT_BYTES = 8;
export const USED_F_NO_NOTIFY = 1;

/** Alignments (virtio 1.2, 2.7 and 2.8.10). */
export const DESCRIPTOR_ALIGNMENT = 16;
export const AVAILABLE_ALIGNMENT = 2;
export const USED_ALIGNMENT = 4;
export const EVENT_ALIGNMENT = 4;

/** Event suppression structure of a packed ring: u16 offset + wrap bit, u16 flags. */
export const EVENT_BYTES = 4;
export const EVENT_F_ENABLE = 0;
export const EVENT_F_DISABLE = 1;
export const EVENT_F_DESC = 2;
export const WRAP_BIT = 0x8000;

/** Inflight region, both layouts: u64 features, u16 version, u16 desc_num; the version that is written today is 1. */
export const HALF_INFLIGHT_VERSION = 4;
export const HALF_INFLIGHT_DESC_NUM = 5;
export const INFLIGHT_VERSION = 1;
/** Each queue's part of the region starts at a multiple of this (not in the spec; libvhost-user and DPDK agree). */
export const INFLIGHT_QUEUE_ALIGNMENT = 64;

/** Split: then u16 last_batch_head, u16 used_idx; entries {u8 inflight, 5 padding, u16 next, u64 counter}. */
export const HALF_SPLIT_LAST_BATCH_HEAD = 6;
export const HALF_SPLIT_USED_IDX = 7;
export const SPLIT_HEADER_BYTES = 16;
export const SPLIT_ENTRY_BYTES = 16;
export const BYTE_SPLIT_INFLIGHT = 0;
export const HALF_SPLIT_NEXT = 3;
export const WORD_SPLIT_COUNTER = 2;

/**
 * Packed: then u16 free_head, old_free_head, used_idx, old_used_idx, u8 used_wrap_counter, old_used_wrap_counter (29 bytes
 * with the padding, 32 by alignment); entries {u8 inflight, u8 padding, u16 next, last, num, u64 counter, u16 id, flags,
 * u32 len, u64 addr}.
 */
export const HALF_PACKED_FREE_HEAD = 6;
export const HALF_PACKED_OLD_FREE_HEAD = 7;
export const HALF_PACKED_USED_IDX = 8;
export const HALF_PACKED_OLD_USED_IDX = 9;
export const BYTE_PACKED_USED_WRAP = 20;
export const BYTE_PACKED_OLD_USED_WRAP = 21;
/** u64 that holds used_idx, old_used_idx, both wrap counters and two bytes of padding. */
export const LONG_PACKED_POSITIONS = 2;
export const PACKED_HEADER_BYTES = 32;
export const PACKED_ENTRY_BYTES = 32;
export const BYTE_PACKED_INFLIGHT = 0;
export const HALF_PACKED_NEXT = 1;
export const HALF_PACKED_LAST = 2;
export const HALF_PACKED_NUM = 3;
export const WORD_PACKED_COUNTER = 2;
export const WORD_PACKED_ID_FLAGS = 4;
export const WORD_PACKED_LENGTH = 5;
export const WORD_PACKED_ADDRESS = 6;
