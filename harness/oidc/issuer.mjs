// A real OIDC issuer for tests, with the device grant. Its first argument is JSON: {host, port, keys, certificate, key,
// formOnly}. Without a certificate, the issuer speaks no TLS. With formOnly, it takes a client's id from the form alone
// at a login's begin, as Dex does. The issuer prints "ready" when it listens. It believes any name that a person
// enters. A name that begins with "op" is in the group "admins".
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import Provider from "oidc-provider";

const { host, port, keys, certificate, key, formOnly } = JSON.parse(process.argv[2]);
const issuer = `${certificate ? "https" : "http"}://${host}:${port}`;

function account(_context, id) {
  const groups = id.startsWith("op") ? ["staff", "admins"] : ["staff"];
  return { accountId: id, claims: () => ({ sub: id, preferred_username: `${id}@hospital.example`, groups }) };
}

const client = {
  redirect_uris: [],
  response_types: [],
  grant_types: ["urn:ietf:params:oauth:grant-type:device_code", "refresh_token"],
};

const provider = new Provider(issuer, {
  clients: [
    { ...client, client_id: "public", token_endpoint_auth_method: "none" },
    { ...client, client_id: "basic", client_secret: "a secret: of+ours", token_endpoint_auth_method: "client_secret_basic" },
    { ...client, client_id: "post", client_secret: "a secret: of+ours", token_endpoint_auth_method: "client_secret_post" },
  ],
  jwks: JSON.parse(readFileSync(keys, "utf8")),
  claims: { openid: ["sub"], profile: ["preferred_username", "groups"] },
  conformIdTokenClaims: false,
  features: { deviceFlow: { enabled: true } },
  findAccount: account,
  issueRefreshToken: async () => true,
  cookies: { keys: ["for tests"] },
});

provider.use(async (context, next) => {
  if (formOnly && context.path === "/device/auth") delete context.req.headers.authorization;
  await next();
});

const ready = () => console.log("ready");
if (certificate) {
  const files = { cert: readFileSync(certificate), key: readFileSync(key) };
  createServer(files, provider.callback()).listen(port, "127.0.0.1", ready);
} else {
  provider.listen(port, "127.0.0.1", ready);
}
