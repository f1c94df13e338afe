import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { VERSION } from "../src/version.js";

const read = (name: string): string => readFileSync(new URL(`../../${name}`, import.meta.url), "utf8");

test("the version is the package's", () => {
  assert.equal(VERSION, JSON.parse(read("package.json")).version);
});

test("the lock names no registry and pins every package by its digest", () => {
  const lock = JSON.parse(read("package-lock.json"));
  const packages = Object.entries<{ resolved?: string; integrity?: string }>(lock.packages).filter(([name]) => name);

  assert(packages.length > 10);
  assert.deepEqual(
    packages.filter(([, { resolved, integrity }]) => resolved !== undefined || !integrity),
    [],
  );
});
