/**
 * Every limit that vhu puts on what comes from outside, in one place, with the reason for each number.
 * A length is checked against its limit before anything is allocated for it.
 */

const KiB = 1024;
const MiB = 1024 * KiB;
const GiB = 1024 * MiB;

/** Largest payload of a message. QEMU accepts 2056, rust-vmm 4096: more than this no peer would take. */
export const MAX_PAYLOAD_BYTES = 4096;
/** Most fds with one message. rust-vmm and crosvm take 32, QEMU and DPDK 8; no message needs more than 8. */
export const MAX_MESSAGE_FDS = 32;
/** Regions in one SET_MEM_TABLE (spec, VHOST_MEMORY_BASELINE_NREGIONS). */
export const MAX_MEM_TABLE_REGIONS = 8;
/** Memory slots for ADD_MEM_REG: what libvhost-user and rust-vmm offer (QEMU asks for 512 at most). */
export const MAX_MEM_SLOTS = 509;
/** Queues of one device. virtio-net with 256 pairs and a control queue needs 513; the index has 8 bits in KICK/CALL. */
export const MAX_QUEUES = 256;
/** Entries of a split or packed ring (virtio 1.2, 2.7 and 2.8: at most 2^15). */
export const MAX_QUEUE_SIZE = 32768;
/** Bytes of a device's config space (QEMU's VHOST_USER_MAX_CONFIG_SIZE). */
export const MAX_CONFIG_BYTES = 256;
/** Length of one descriptor chain in bytes (virtio 1.2, 2.7.4: a chain is at most 2^32 bytes). */
export const MAX_CHAIN_BYTES = 4 * GiB;
/** Contiguous pieces of one chain: two for every descriptor of the largest ring, where regions split buffers. */
export const MAX_CHAIN_PIECES = 2 * MAX_QUEUE_SIZE;
/** Descriptors of an indirect table, unless the ring itself is larger: QEMU's VIRTQUEUE_MAX_SIZE, and Linux's IOV_MAX. */
export const MAX_INDIRECT_DESCRIPTORS = 1024;
/** One view of a mapping: indices at or above 2^31 are 30x slower in JavaScriptCore (measured). */
export const MAX_WINDOW_BYTES = 1 * GiB;
/** Notifications that wait for a front-end which does not read: a call and an error for each queue, and the IOTLB misses. */
export const MAX_PENDING_NOTIFICATIONS = 1024;
/** Shared memory regions of a device: an 8-bit shmid. */
export const MAX_SHMEM_REGIONS = 256;
/** Entries of the device IOTLB; the kernel's vhost keeps 2048. */
export const MAX_IOTLB_ENTRIES = 2048;

/** How long a request may take to be answered. */
export const DEFAULT_REQUEST_TIMEOUT_MS = 5_000;
/** How long the rest of a message may take once its first byte is here. */
export const DEFAULT_MESSAGE_TIMEOUT_MS = 5_000;
/** How long a device-state transfer may go without a byte. */
export const DEFAULT_TRANSFER_IDLE_TIMEOUT_MS = 30_000;
/** How long stopping a ring may wait for the requests in flight. */
export const DEFAULT_DRAIN_TIMEOUT_MS = 30_000;

/** A device state as a whole: what a back-end may write before the transfer is refused. */
export const MAX_DEVICE_STATE_BYTES = 64 * GiB;
/** State that is held in memory; beyond this it goes to a spool file. */
export const MAX_IN_MEMORY_STATE_BYTES = 4 * MiB;
/** One chunk of a device state on its way. Pipes hold at most 1 MiB for an ordinary user. */
export const STATE_CHUNK_BYTES = 1 * MiB;
/** One section of a framed device state that is decoded in memory. */
export const MAX_STATE_SECTION_BYTES = 64 * MiB;
/** Sections of one framed device state. */
export const MAX_STATE_SECTIONS = 4096;

/** Header of a framed device state: four short fields; more is not a header. */
export const MAX_STATE_HEADER_BYTES = 4 * KiB;
/** Name of a device type or of a section, in UTF-8. */
export const MAX_STATE_NAME_BYTES = 255;
/** Nesting of a msgpack value: our deepest state has 5 levels, and the validator recurses. */
export const MAX_STATE_VALUE_DEPTH = 32;
/** Items of one msgpack value: one byte of input can become an 8-byte JavaScript value. */
export const MAX_STATE_VALUE_ITEMS = 1 << 20;

/** Times its size that is hashed of a damaged file while whole records are looked for: a hostile one has a candidate at every byte. */
export const MAX_SALVAGE_READS = 4;

/** Levels of a state that is taken apart for people, of whatever format: a level more than the deepest msgpack value. */
export const MAX_STATE_TREE_DEPTH = MAX_STATE_VALUE_DEPTH + 1;

/** Bytes that a console holds in each direction before it stops taking more: a pipe's worth. */
export const MAX_CONSOLE_QUEUE_BYTES = 64 * KiB;
/** One write of a console's driver, which is taken as a whole: Linux's are 32 KiB at most, or 64 KiB when it splices. */
export const MAX_CONSOLE_CHAIN_BYTES = 1 * MiB;
/** Ports of a console: as many as QEMU's virtio-serial has. */
export const MAX_CONSOLE_PORTS = 31;
/** Name of a console port, in UTF-8: it becomes a file's name in the guest (/dev/virtio-ports/NAME). */
export const MAX_CONSOLE_NAME_BYTES = 255;
/** Input in a console port's state: the queue, and what a UNIX socket's buffers hold of it at most (net.core.wmem_default: 208 KiB). */
export const MAX_CONSOLE_SAVED_INPUT_BYTES = 512 * KiB;
/** Output that a pty's reader has not read: the terminal's 4 KiB and the 64 KiB before it (TTYB_DEFAULT_MEM_LIMIT), and as much again. */
export const MAX_CONSOLE_TAKEN_BACK_BYTES = 128 * KiB;

/** One frame with its virtio header: what QEMU's network back-ends take (NET_BUFSIZE, 64 KiB of data and 4 KiB for headers). */
export const MAX_NET_FRAME_BYTES = 68 * KiB;
/** Bytes of frames that wait in a network device, in each direction of a queue pair, before it stops taking more. */
export const MAX_NET_QUEUE_BYTES = 256 * KiB;
/** Addresses in each of the two tables of a MAC filter; with more, everything of that kind passes (QEMU's is 64, too). */
export const MAX_NET_FILTER_ADDRESSES = 64;
/** One command on a control queue: two tables of 1024 addresses stay below. */
export const MAX_NET_CONTROL_BYTES = 16 * KiB;
/** Random bytes for one request. Linux asks for 64; the device may give fewer than asked for, and serves in line. */
export const MAX_RNG_REQUEST_BYTES = 64 * KiB;

/** Plain JSON header of a snapshot. */
export const MAX_SNAPSHOT_HEADER_BYTES = 1 * MiB;
/** Manifest and memory map of a snapshot, as JSON: 256 devices of 256 queues stay below 8 MiB. */
export const MAX_SNAPSHOT_MANIFEST_BYTES = 16 * MiB;
/** Devices of a snapshot: a machine file has 64, and PCI has no more functions on 16 buses. Whoever shows them looks each one up. */
export const MAX_SNAPSHOT_DEVICES = 4096;
/** Nesting of the JSON in a snapshot: what describes a machine has some ten levels, and whoever shows it recurses. */
export const MAX_SNAPSHOT_JSON_DEPTH = 64;
/** Values in one of them: 256 devices of 256 queues have 300,000. Two bytes of text can become an object of forty. */
export const MAX_SNAPSHOT_JSON_ITEMS = 1 << 20;
/** One record of a snapshot. The largest is the index: 4 Mi extents of 56 bytes. */
export const MAX_SNAPSHOT_RECORD_BYTES = 256 * MiB;
/** Records of a snapshot: 64 GiB of device state and 1 TiB of memory in chunks of 1 MiB stay below. */
export const MAX_SNAPSHOT_RECORDS = 2 * 1024 * 1024;
/** Extents of the living index; with {@link MAX_SNAPSHOT_RECORD_BYTES} for the index record. */
export const MAX_SNAPSHOT_EXTENTS = 4 * 1024 * 1024;
/** Plain bytes of one zstd frame: what a reader must be able to allocate for one extent. */
export const MAX_SNAPSHOT_FRAME_BYTES = 1 * MiB;
/** Extents in one record, so that a damaged record costs little: four windows of 256 single pages each. */
export const MAX_SNAPSHOT_BATCH_EXTENTS = 1024;
/** One memory region: offsets stay exact as numbers far beyond this. */
export const MAX_SNAPSHOT_REGION_BYTES = 16 * 1024 * GiB;
/** A snapshot that comes through a pipe and is spooled to disk. */
export const MAX_SNAPSHOT_SPOOL_BYTES = 1024 * GiB;

/** One message of a QEMU monitor: query-qmp-schema answers 300 KB, and the largest tree of objects stays below 2 MB. */
export const MAX_QMP_MESSAGE_BYTES = 16 * MiB;
/** A program whose file is hashed to tell its build; the largest in use, Bun, has 100 MB. */
export const MAX_PROGRAM_BYTES = 256 * MiB;
/** Events of a monitor that wait to be looked at; the oldest are dropped. */
export const MAX_QMP_EVENTS = 1024;
/** What of a QEMU stream is not guest memory: the states of vhost-user back-ends are the largest part (18 bytes per inode of virtiofsd). */
export const MAX_QEMU_STREAM_BYTES = 256 * MiB;
/** Nesting of a device's description in a QEMU stream: QEMU's deepest has 7 levels. */
export const MAX_VMDESC_DEPTH = 32;
/** The description that ends a QEMU stream: 45 KB for a small machine, 10 KB more for each CPU. */
export const MAX_VMDESC_BYTES = 16 * MiB;
/** Fields of a QEMU stream that are shown one by one: a CPU has some 2,000, a machine without them 10,000. */
export const MAX_QEMU_TREE_NODES = 1 << 20;
/** A name that is shown, of a field or a section; a longer one is cut. */
export const MAX_SHOWN_NAME_CHARACTERS = 255;
/** What stands before the stream of a virsh save file: the machine's XML, 10 KB, with 64 KiB of room for edits. */
export const MAX_LIBVIRT_DATA_BYTES = 8 * MiB;
/** Capabilities that a stream demands of its reader: QEMU 10 knows of two. */
export const MAX_STREAM_CAPABILITIES = 64;
/** Sections of a QEMU stream: one for each device, 288 CPUs with three each included. */
export const MAX_QEMU_SECTIONS = 65536;
/** Workers that compress or unpack a snapshot: beyond four, memory bandwidth and the one writer are the limit. */
export const MAX_SNAPSHOT_WORKERS = 4;
/** Times that a page may come again while a VM is saved: QEMU stops it after a few looks at its memory. */
export const MAX_MEMORY_PASSES = 1024;
/** Passphrases, and groups of recipients, of an encrypted snapshot: each passphrase that is tried costs a second. */
export const MAX_SNAPSHOT_KEYS = 16;
/** Files that a snapshot may stand on: each one more has to be there, whole, for a load. */
export const MAX_SNAPSHOT_CHAIN = 32;
/** Images that a disk may stand on: QEMU itself takes some 200, and each costs an open file. */
export const MAX_DISK_CHAIN = 64;
/** Files beside a snapshot that are looked at when its parent was renamed. */
export const MAX_SNAPSHOT_SIBLINGS = 1000;
/** Memory of a machine whose pages' hashes are kept for the next incremental snapshot: 256 MiB of hashes, and those of the base. */
export const MAX_SNAPSHOT_HASHED_BYTES = 64 * GiB;
/** The table in which a writer finds duplicate pages: enough for 8 GiB of different pages; with more, fewer are found. */
export const MAX_SNAPSHOT_PAGE_TABLE_BYTES = 64 * MiB;
/** The log of one operation: a line for each phase, of which a hand-over has some twenty, with at most a few KiB each. */
export const MAX_OPERATION_LOG_BYTES = 4 * MiB;
/** Operations that have ended and are still listed; the oldest go first. */
export const MAX_ENDED_OPERATIONS = 100;

/** Connections to `vhu migrate receive` that have not said yet who they are; more are closed at once. */
export const MAX_LIVE_STRANGERS = 16;
/** What a connection may send before it has said who it is, and for how long it may take. */
export const MAX_LIVE_STRANGER_BYTES = 64 * KiB;
export const LIVE_GREETING_TIMEOUT_MS = 10_000;
/** One frame of a live migration: a window of memory that does not compress, or a message; more needs no frame. */
export const MAX_LIVE_FRAME_BYTES = 1 * MiB + 64 * KiB;
/** Data streams of one migration, with a connection each: beyond eight, only the processors are the limit. */
export const MAX_LIVE_STREAMS = 8;
/** Bytes of a stream that were sent and not yet acknowledged: 125 MB/s at 100 ms, which a broken connection sends again. */
export const MAX_LIVE_WINDOW_BYTES = 16 * MiB;
/** Bytes of a stream that came and were not yet used: a window's, and the frames that cross it. */
export const MAX_LIVE_UNREAD_BYTES = MAX_LIVE_WINDOW_BYTES + 4 * MAX_LIVE_FRAME_BYTES;
/** Bytes that a connection has not taken yet: a window's, that of the one before, and acknowledgements. A peer that takes nothing is cut off. */
export const MAX_LIVE_UNSENT_BYTES = 3 * MAX_LIVE_WINDOW_BYTES;
/** Messages of a migration that wait to be looked at: it has some ten, one after the other. */
export const MAX_LIVE_WAITING_MESSAGES = 16;
/** States of one migration, each with a spool: its devices (a machine file has 64), its own and QEMU's stream. */
export const MAX_LIVE_STATES = 256;
/** All states of all migrations that a receiver takes at a time: they wait in its temporary folder. */
export const MAX_LIVE_STATES_BYTES = MAX_DEVICE_STATE_BYTES;
/** Of one migration's states, what waits in memory; from then on each goes to a file. */
export const MAX_LIVE_STATES_IN_MEMORY_BYTES = 64 * MiB;
/** Disks of one migration: as many as an offer lists. */
export const MAX_LIVE_DISKS = 256;
/** Names of what a processor has; QEMU knows some 400. */
export const MAX_CPU_FEATURES = 2048;
/** One write by NBD: QEMU's and the protocol's own limit (doc/proto.md, "Size constraints"). */
export const MAX_NBD_WRITE_BYTES = 32 * MiB;
/** An option of NBD's handshake: a name, of at most 4096 bytes, and what is asked about it. */
export const MAX_NBD_OPTION_BYTES = 8 * KiB;
/** Migrations that one receiver takes at a time. */
export const MAX_LIVE_SESSIONS = 16;
/** A connection that was silent for so long is broken; both sides say something every second. */
export const LIVE_SILENCE_TIMEOUT_MS = 10_000;
/** For how long the other side of a migration may be there and not get on: where it only has to answer; */
export const LIVE_STEP_TIMEOUT_MS = 30_000;
/** where memory and states are on their way, with the slowest device's transfer (30 s) several times over; */
export const LIVE_STALL_TIMEOUT_MS = 120_000;
/** where the machine is handed over: QEMU may take 30 s to give it up; */
export const LIVE_HANDOVER_TIMEOUT_MS = 60_000;
/** and there after Ctrl-C. */
export const LIVE_LAST_WORD_TIMEOUT_MS = 5_000;
/** A pairing token: how often a wrong one may be tried, and for how long it is good. */
export const MAX_TOKEN_TRIES = 5;
export const TOKEN_LIFETIME_MS = 10 * 60_000;
/** How long a receiver keeps a migration whose connections broke, at most. */
export const MAX_LIVE_RETRY_MS = 10 * 60_000;
/** Pages that were sent once and changed again: what a sender keeps of them, to send only what differs. */
export const MAX_LIVE_DELTA_BYTES = 256 * MiB;
