#!/usr/bin/env bun
import { main } from "./program.ts";

// Everything was written with write(2) by now, so nothing is lost; a Worker or socket left over cannot hold us up.
process.exit(await main(process.argv.slice(2)));
