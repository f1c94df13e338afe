/** The contract's messages and services, generated from protos/warmline/v1. */

export * from "./gen/warmline/v1/errors.js";
export * from "./gen/warmline/v1/session_service.js";
export * from "./gen/warmline/v1/trace_service.js";
export * from "./gen/warmline/v1/turn_service.js";
export * from "./gen/warmline/v1/types.js";
export type { Duration } from "./gen/google/protobuf/duration.js";
export type { Timestamp } from "./gen/google/protobuf/timestamp.js";
