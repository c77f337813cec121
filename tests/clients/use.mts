// A control plane in small, by the types that openapi-typescript makes of the document: a network, a NIC, and both away again.
import createClient from "openapi-fetch";
import { Agent, Request, fetch } from "undici";
import type { paths } from "./schema.js";

declare const process: { argv: string[] };

const [socketPath = "", server = ""] = process.argv.slice(2);
// undici's own fetch, because Node's cannot be given a socket; its types differ from the browser's in name alone.
const dispatcher = new Agent({ connect: { socketPath } });
const nicd = createClient<paths>({
  baseUrl: "http://localhost",
  Request: Request as unknown as typeof globalThis.Request,
  fetch: (request) => fetch(request as unknown as Request, { dispatcher }) as unknown as Promise<globalThis.Response>,
});

// The data of a success.
function good<T>({ data, error, response }: { data?: T; error?: unknown; response: { status: number } }): T {
  if (data === undefined) throw new Error(`${response.status} ${JSON.stringify(error)}`);
  return data;
}

const made = good(await nicd.POST("/v2.0/networks", { body: { network: { name: "typed", mtu: 1400 } } }));
if (!("network" in made)) throw new Error("several networks");
const network = made.network.id;
good(await nicd.POST("/v2.0/subnets", { body: { subnet: { network_id: network, cidr: "192.0.2.0/24" } } }));
const listed = good(await nicd.GET("/v2.0/networks", { params: { query: { name: ["typed"] } } }));
console.log(listed.networks.length, listed.networks[0]?.mtu);

const nics = { params: { path: { server } } };
const attached = good(
  await nicd.POST("/v2.1/servers/{server}/os-interface", { ...nics, body: { interfaceAttachment: { net_id: network } } }),
).interfaceAttachment;
console.log(attached.port_state, attached.fixed_ips[0]?.ip_address);
const shown = good(await nicd.GET("/v2.0/ports/{id}", { params: { path: { id: attached.port_id } } })).port;
console.log(shown.status, shown["nicd:phase"], shown.mac_address === attached.mac_addr);
const explained = good(await nicd.GET("/nicd/v1/ports/{id}/explain", { params: { path: { id: attached.port_id } } }));
console.log(explained.facts.every((fact) => fact.ok));

const nic = { params: { path: { server, port: attached.port_id } } };
const gone = await nicd.DELETE("/v2.1/servers/{server}/os-interface/{port}", nic);
console.log(gone.response.status);
const refused = await nicd.GET("/v2.0/ports/{id}", { params: { path: { id: network } } });
if (!refused.error || !("NeutronError" in refused.error)) throw new Error("not refused");
console.log(refused.error.NeutronError.reason);
await dispatcher.close();
