"""A reader of snapshot files that knows nothing but docs/snapshot-format.md. Standard library only.

    python3 read-snapshot.py FILE      prints what it has found as JSON, or fails

It does not unpack zstd frames: there is no zstd in the standard library. Everything around them is checked.
"""
import hashlib
import json
import struct
import sys

# --- XXH3 with 64 bits and seed 0 (https://github.com/Cyan4973/xxHash, doc/xxhash_spec.md) ---
SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221"
    "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb"
    "170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)
MASK = (1 << 64) - 1
P32_1, P32_2, P32_3 = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D
P64_1, P64_2, P64_3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
P64_4, P64_5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5


def r32(data, at):
    return int.from_bytes(data[at : at + 4], "little")


def r64(data, at):
    return int.from_bytes(data[at : at + 8], "little")


def fold(a, b):
    product = a * b
    return (product & MASK) ^ (product >> 64)


def avalanche(h):
    h ^= h >> 37
    h = h * 0x165667919E3779F9 & MASK
    return h ^ (h >> 32)


def avalanche64(h):
    h ^= h >> 33
    h = h * P64_2 & MASK
    h ^= h >> 29
    h = h * P64_3 & MASK
    return h ^ (h >> 32)


def rotl(h, bits):
    return (h << bits | h >> (64 - bits)) & MASK


def mix16(data, at, secret):
    return fold(r64(data, at) ^ r64(SECRET, secret), r64(data, at + 8) ^ r64(SECRET, secret + 8))


def accumulate(acc, data, at, secret):
    for lane in range(8):
        value = r64(data, at + 8 * lane)
        key = value ^ r64(SECRET, secret + 8 * lane)
        acc[lane ^ 1] = (acc[lane ^ 1] + value) & MASK
        acc[lane] = (acc[lane] + (key & 0xFFFFFFFF) * (key >> 32)) & MASK


def xxh3(data):
    n = len(data)
    if n == 0:
        return avalanche64(r64(SECRET, 56) ^ r64(SECRET, 64))
    if n <= 3:
        combined = data[0] << 16 | data[n >> 1] << 24 | data[n - 1] | n << 8
        return avalanche64(combined ^ r32(SECRET, 0) ^ r32(SECRET, 4))
    if n <= 8:
        h = (r32(data, n - 4) + (r32(data, 0) << 32)) ^ r64(SECRET, 8) ^ r64(SECRET, 16)
        h ^= rotl(h, 49) ^ rotl(h, 24)
        h = h * 0x9FB21C651E98DF25 & MASK
        h ^= (h >> 35) + n
        h = h * 0x9FB21C651E98DF25 & MASK
        return h ^ (h >> 28)
    if n <= 16:
        low = r64(data, 0) ^ r64(SECRET, 24) ^ r64(SECRET, 32)
        high = r64(data, n - 8) ^ r64(SECRET, 40) ^ r64(SECRET, 48)
        swapped = int.from_bytes(low.to_bytes(8, "little"), "big")
        return avalanche((n + swapped + high + fold(low, high)) & MASK)
    acc = n * P64_1 & MASK
    if n <= 128:
        for step in reversed(range((n - 1) // 32 + 1)):
            acc += mix16(data, 16 * step, 32 * step)
            acc += mix16(data, n - 16 * (step + 1), 32 * step + 16)
        return avalanche(acc & MASK)
    if n <= 240:
        for step in range(8):
            acc += mix16(data, 16 * step, 16 * step)
        acc = avalanche(acc & MASK)
        for step in range(8, n // 16):
            acc += mix16(data, 16 * step, 16 * (step - 8) + 3)
        acc += mix16(data, n - 16, 136 - 17)
        return avalanche(acc & MASK)
    lanes = [P32_3, P64_1, P64_2, P64_3, P64_4, P32_2, P64_5, P32_1]
    blocks = (n - 1) // 1024
    for block in range(blocks):
        for stripe in range(16):
            accumulate(lanes, data, 1024 * block + 64 * stripe, 8 * stripe)
        for lane in range(8):
            value = lanes[lane] ^ (lanes[lane] >> 47) ^ r64(SECRET, 128 + 8 * lane)
            lanes[lane] = value * P32_1 & MASK
    for stripe in range((n - 1 - 1024 * blocks) // 64):
        accumulate(lanes, data, 1024 * blocks + 64 * stripe, 8 * stripe)
    accumulate(lanes, data, n - 64, 192 - 64 - 7)
    for pair in range(4):
        acc += fold(lanes[2 * pair] ^ r64(SECRET, 11 + 16 * pair), lanes[2 * pair + 1] ^ r64(SECRET, 19 + 16 * pair))
    return avalanche(acc & MASK)


# --- The file ---
def require(condition, message):
    if not condition:
        raise SystemExit("read-snapshot: " + message)


KINDS = {0: "zero", 1: "duplicate", 2: "data", 3: "parent"}


class Snapshot:
    def __init__(self, data):
        self.data = data
        self.read_header()
        self.read_end()
        self.read_index()
        self.read_json_records()
        self.read_extent_records()
        self.check_streams()
        self.check_signature()

    def read_header(self):
        require(self.data[:8] == b"VHUSNAP\0", "no magic")
        self.version, length = struct.unpack_from("<II", self.data, 8)
        require(self.version <= 1 and length <= 1 << 20, "header")
        covered = 16 + length
        (checksum,) = struct.unpack_from("<Q", self.data, covered)
        require(xxh3(self.data[:covered]) == checksum, "checksum of the header")
        self.header = json.loads(self.data[16:covered])
        self.header_size = covered + 8
        self.header_checksum = checksum

    def record(self, offset):
        """type, flags, id, payload, size, checksum; checked."""
        kind, flags, reserved, number, length = struct.unpack_from("<HHIQQ", self.data, offset)
        require(reserved == 0 and length <= 256 << 20, "head of a record")
        head = self.data[offset : offset + 24]
        payload = self.data[offset + 24 : offset + 24 + length]
        (checksum,) = struct.unpack_from("<Q", self.data, offset + 24 + length)
        require(checksum == xxh3(head + struct.pack("<Q", xxh3(payload))), f"checksum of the record at {offset}")
        return kind, flags, number, payload, 24 + length + 8, checksum

    def read_end(self):
        kind, _, _, payload, size, _ = self.record(len(self.data) - 96)
        require(kind == 0xFF and size == 96, "end")
        self.index_offset, self.index_size, file_size, version, zero = struct.unpack_from("<QQQII", payload)
        require(file_size == len(self.data) and version == 0 and zero == 0, "fields of the end")
        self.root = payload[32:64]

    def read_index(self):
        kind, _, _, payload, size, _ = self.record(self.index_offset)
        require(kind == 0xF0 and size == self.index_size, "index")
        require(hashlib.sha256(payload).digest() == self.root, "root")
        version, leaf_kind, records, streams, extents, zero = struct.unpack_from("<6I", payload)
        require(version == 0 and leaf_kind == 0 and zero == 0, "fields of the index")
        self.stats = struct.unpack_from("<4Q", payload, 24)
        at = 64
        self.records = []
        position = 0
        for _ in range(records):
            kind, flags, zero, number, offset, size, checksum = struct.unpack_from("<HHIQQQQ", payload, at)
            require(offset == position and zero == 0, "records follow each other")
            position += size
            at += 40
            if offset == 0:
                require((kind, size, checksum) == (0, self.header_size, self.header_checksum), "entry of the header")
            else:
                found = self.record(offset)
                require(found[:3] == (kind, flags, number) and found[4:] == (size, checksum), "a record is as listed")
            self.records.append({"type": kind, "flags": flags, "id": number, "offset": offset, "size": size})
        require(position == self.index_offset, "records end at the index")
        self.streams = []
        for _ in range(streams):
            kind, _, number, chunks, _, size = struct.unpack_from("<HHIIIQ", payload, at)
            sha256 = payload[at + 24 : at + 56].hex()
            self.streams.append({"type": kind, "streamId": number, "chunkCount": chunks, "sizeBytes": size, "sha256": sha256})
            at += 56
        self.extents = [self.extent(payload, at + 56 * number) for number in range(extents)]
        require(at + 56 * extents == len(payload), "the index ends with its extents")

    def extent(self, table, at):
        region, number, offset, size, kind, codec, seal, frame_size, frame, checksum, plain, skip = struct.unpack_from(
            "<IIQQBBHIQQII", table, at
        )
        require(offset % 4096 == 0 and size % 4096 == 0 and size > 0 and seal == 0, "an extent")
        has_frame = KINDS[kind] in ("data", "duplicate")
        require(codec == int(has_frame), "codec")
        if has_frame:
            require(plain % 4096 == 0 and plain <= 1 << 20 and skip % 4096 == 0 and skip + size <= plain, "skip")
            require(self.data[frame : frame + 4] == b"\x28\xb5\x2f\xfd", "a zstd frame")
        else:
            require((frame_size, frame, checksum, plain, skip) == (0, 0, 0, 0, 0), "fields of an extent without a frame")
        return {"region": region, "pass": number, "offset": offset, "size": size, "kind": KINDS[kind], "frame": frame, "skip": skip}

    def payloads(self, kind):
        return [self.record(entry["offset"])[3] for entry in self.records if entry["type"] == kind and entry["offset"] > 0]

    def read_json_records(self):
        (manifest,) = self.payloads(1)
        self.manifest = json.loads(manifest)
        self.regions = [region for payload in self.payloads(2) for region in json.loads(payload)["regions"]]
        parents = [json.loads(payload) for payload in self.payloads(8)]
        require(len(parents) <= 1, "one parent")
        self.parent = parents[0] if parents else None

    def read_extent_records(self):
        """What lives, by the passes: page by page, the last word counts."""
        words = {}
        for payload in self.payloads(3):
            count, zero = struct.unpack_from("<II", payload)
            require(1 <= count <= (1024 if self.version > 0 else 64) and zero == 0, "count of extents")
            for number in range(count):
                extent = self.extent(payload, 8 + 56 * number)
                for page in range(extent["offset"], extent["offset"] + extent["size"], 4096):
                    known = words.get((extent["region"], page))
                    require(known is None or known["pass"] != extent["pass"], "no overlap within a pass")
                    if known is None or known["pass"] < extent["pass"]:
                        words[extent["region"], page] = extent
        for region in self.regions:
            for page in range(0, region["sizeBytes"], 4096):
                require((region["id"], page) in words, "every page is told of")
        listed = 0
        for extent in self.extents:
            for page in range(extent["offset"], extent["offset"] + extent["size"], 4096):
                origin = words[extent["region"], page]
                # A part of an extent begins further into its frame.
                moved = page - origin["offset"] + origin["skip"] == page - extent["offset"] + extent["skip"]
                require(origin["kind"] == extent["kind"] and origin["frame"] == extent["frame"], "the index lists what lives")
                require(moved or not extent["frame"], "skip of a part")
                listed += 1
        require(listed == len(words), "the index lists all that lives")

    def check_streams(self):
        for stream in self.streams:
            chunks = [entry for entry in self.records if entry["type"] == stream["type"] and entry["id"] >> 32 == stream["streamId"]]
            require([entry["id"] & 0xFFFFFFFF for entry in chunks] == list(range(stream["chunkCount"])), "chunks in order")
            size = 0
            for entry in chunks:
                payload = self.record(entry["offset"])[3]
                plain, codec = struct.unpack_from("<II", payload)
                require(codec == 1 and 1 <= plain <= 1 << 20 and payload[16:20] == b"\x28\xb5\x2f\xfd", "a chunk")
                size += plain
            require(size == stream["sizeBytes"], "size of a stream")

    def check_signature(self):
        self.signed_by = None
        offset = self.index_offset + self.index_size
        if offset == len(self.data) - 96:
            return
        kind, _, _, payload, size, _ = self.record(offset)
        require(kind == 0xF1 and offset + size == len(self.data) - 96, "signature")
        version, count = struct.unpack_from("<II", payload)
        require(version == 1 and len(payload) == 104 + 32 * count, "fields of the signature")
        parts = [(entry["offset"], entry["size"]) for entry in self.records] + [(self.index_offset, self.index_size)]
        leaves = [hashlib.sha256(self.data[at : at + length]).digest() for at, length in parts]
        require(b"".join(leaves) == payload[104:], "leaves of the signature")
        self.signed_by = payload[8:40].hex()


def main():
    with open(sys.argv[1], "rb") as file:
        snapshot = Snapshot(file.read())
    fields = ["version", "header", "manifest", "regions", "parent", "records", "streams", "extents", "stats"]
    document = {field: getattr(snapshot, field) for field in fields}
    print(json.dumps({**document, "root": snapshot.root.hex(), "signedBy": snapshot.signed_by}))


main()
