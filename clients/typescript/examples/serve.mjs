// serve.mjs [PORT]: serves the example page, what it imports, and nothing else. Bundlers do this for real pages.

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";

const home = fileURLToPath(new URL("..", import.meta.url));
const open = ["/examples/", "/dist/", "/build/examples/", "/node_modules/@bufbuild/protobuf/"];
const types = { ".html": "text/html; charset=utf-8", ".js": "text/javascript" };

const server = createServer(async ({ url }, response) => {
  const { pathname } = new URL(url, "http://localhost");
  const path = pathname === "/" ? "/examples/index.html" : pathname;
  const type = types[extname(path)];
  const found = type && open.some((folder) => path.startsWith(folder)) && (await stat(join(home, path)).catch(() => undefined));
  if (!found) {
    response.writeHead(404).end();
    return;
  }
  response.writeHead(200, { "content-type": type });
  createReadStream(join(home, path)).pipe(response);
});
server.listen(Number(process.argv[2] ?? 8090), "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}/`));
