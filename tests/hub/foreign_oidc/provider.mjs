// A provider of another house (npm: oidc-provider) with one client and a login that asks nobody for a password.
// Arguments: PORT CLIENT_ID CLIENT_SECRET REDIRECT_URI POST_LOGOUT_URI

import { Provider } from "oidc-provider";

const [port, clientId, clientSecret, redirectUri, postLogoutUri] = process.argv.slice(2);

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [{
    client_id: clientId,
    client_secret: clientSecret,
    redirect_uris: [redirectUri],
    post_logout_redirect_uris: [postLogoutUri],
    response_types: ["code"],
    grant_types: ["authorization_code"],
    token_endpoint_auth_method: "client_secret_basic",
  }],
  pkce: { required: () => true },
  // Standard claims are at the userinfo endpoint, not in the id token (OpenID Connect Core 1.0, section 5.4).
  conformIdTokenClaims: true,
  claims: { openid: ["sub"], profile: ["name"], email: ["email"] },
  cookies: { keys: ["only for tests"] },
  features: {
    devInteractions: { enabled: true },
    rpInitiatedLogout: {
      enabled: true,
      // As its own page does when the person says yes.
      logoutSource: (ctx, form) => { ctx.body = `<html><body>${form}</body></html>`; },
    },
  },
  findAccount: (_ctx, id) => ({
    accountId: id,
    claims: () => ({ sub: id, name: `Name of ${id}`, email: `${id}@example.org` }),
  }),
});

provider.listen(Number(port), "127.0.0.1", () => console.log("listening"));
