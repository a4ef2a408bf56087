import { z } from "zod";

/** The answers that vhu reads, as far as it reads them. What QEMU adds later is let through. */
const size = z.number().int().min(0);

export const qmpStatus = z.looseObject({ status: z.string(), running: z.boolean() });
export const qmpName = z.looseObject({ name: z.string().optional() });
export const qmpText = z.string();

export const qmpMigration = z.looseObject({
  status: z.string().optional(),
  "error-desc": z.string().optional(),
  "blocked-reasons": z.array(z.string()).optional(),
});

/** A migration of a VM that runs. */
export const qmpPrecopy = z.looseObject({
  status: z.string().optional(),
  "cpu-throttle-percentage": z.number().optional(),
  ram: z
    .looseObject({
      transferred: size,
      remaining: size,
      "page-size": size,
      "dirty-sync-count": size,
      "dirty-pages-rate": size,
    })
    .optional(),
});
export type QmpPrecopy = z.infer<typeof qmpPrecopy>;

export const qmpCpuExpansion = z.looseObject({
  model: z.looseObject({ props: z.record(z.string(), z.unknown()).optional() }),
});
export const qmpNames = z.array(z.string());
export const qmpDirtyRate = z.looseObject({ status: z.string(), "dirty-rate": size.optional() });
export const qmpCapabilities = z.array(z.looseObject({ capability: z.string(), state: z.boolean() }));
export const qmpParameters = z.record(z.string(), z.unknown());

export const qmpCpus = z.array(z.looseObject({ "qom-path": z.string(), target: z.string() }));
export const qmpMemorySize = z.looseObject({ "base-memory": size, "plugged-memory": size.optional() });
export const qmpMemoryDevices = z.array(z.looseObject({ type: z.string() }));
/** A backend that was not made by the user has no id of its own. */
export const qmpMemoryBackends = z.array(z.looseObject({ id: z.string().optional() }));
export const qmpVirtioDevices = z.array(z.looseObject({ name: z.string(), path: z.string() }));
export const qmpVirtioStatus = z.looseObject({
  "guest-features": z.looseObject({
    transports: z.array(z.string()),
    "dev-features": z.array(z.string()).optional(),
  }),
  /** While the guest's driver uses the device, and a back-end serves it. */
  "vhost-dev": z
    .looseObject({ "protocol-features": z.looseObject({ protocols: z.array(z.string()) }).optional() })
    .optional(),
});
export const qmpChardevs = z.array(z.looseObject({ label: z.string(), filename: z.string() }));

const image = z.looseObject({
  filename: z.string(),
  format: z.string(),
  "virtual-size": size,
  "dirty-flag": z.boolean().optional(),
  "actual-size": size.optional(),
  encrypted: z.boolean().optional(),
  snapshots: z.array(z.unknown()).optional(),
  /** Of the same form, and so on to the base. */
  "backing-image": z.unknown().optional(),
});
export const qmpBackingImage = z.looseObject({
  filename: z.string(),
  "backing-image": z.unknown().optional(),
});
export const qmpBlocks = z.array(
  z.looseObject({
    device: z.string(),
    qdev: z.string().optional(),
    inserted: z
      .looseObject({
        file: z.string(),
        ro: z.boolean(),
        drv: z.string(),
        "node-name": z.string().optional(),
        image,
      })
      .optional(),
  }),
);

export const qmpJobs = z.array(
  z.looseObject({ device: z.string(), ready: z.boolean(), len: size.optional(), offset: size.optional() }),
);
/** Of the end of a block job. */
export const qmpJobEnd = z.looseObject({ device: z.string(), error: z.string().optional() });
export const qmpObjects = z.array(z.looseObject({ name: z.string(), type: z.string() }));
export const qmpDeviceProperties = z.array(
  z.looseObject({ name: z.string(), "default-value": z.unknown().optional() }),
);
export const qmpBlockNodes = z.array(
  z.looseObject({ "node-name": z.string().optional(), drv: z.string(), file: z.string(), ro: z.boolean() }),
);
