// Bundles the console into ../assets/dist, which the dream binary embeds.
import { build } from "esbuild";
import { cp } from "node:fs/promises";

const out = "../assets/dist";
await build({
  entryPoints: { app: "src/main.ts", viewer: "src/viewer.ts" },
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  outdir: out,
  legalComments: "linked",
});
await cp("src/style.css", `${out}/style.css`);
