// Verify a bundle with @sigstore/verify: node verify.cjs MODULES BUNDLE TRUSTED_ROOT KEYS
// Prints the payload's predicate type if it accepts; ends with 1 and says why if it does not.
"use strict";
const { readFileSync } = require("node:fs");
const { createRequire } = require("node:module");

const [modules, bundlePath, rootPath, keysPath] = process.argv.slice(2);
const load = createRequire(`${modules}/package.json`);
const { bundleFromJSON } = load("@sigstore/bundle");
const { PublicKey, TrustedRoot } = load("@sigstore/protobuf-specs");
const { Verifier, toSignedEntity, toTrustMaterial } = load("@sigstore/verify");

const read = (path) => JSON.parse(readFileSync(path, "utf8"));
const keys = Object.fromEntries(
  Object.entries(read(keysPath)).map(([hint, key]) => [hint, PublicKey.fromJSON(key)]),
);
try {
  const bundle = bundleFromJSON(read(bundlePath));
  const material = toTrustMaterial(TrustedRoot.fromJSON(read(rootPath)), keys);
  const verifier = new Verifier(material, { ctlogThreshold: 0, tlogThreshold: 0, tsaThreshold: 0, timestampThreshold: 0 });
  verifier.verify(toSignedEntity(bundle));
  const { payload, payloadType } = bundle.content.dsseEnvelope;
  if (payloadType !== "application/vnd.in-toto+json") throw new Error("another payload type");
  console.log(JSON.parse(payload.toString("utf8")).predicateType);
} catch (error) {
  console.error(`rejected: ${error.code ?? error.name}: ${error.message}`);
  process.exit(1);
}
