// Logs the operator in: authorization code with PKCE (RFC 7636) against the gateway's own server.
// The token lives in memory alone. Before it ends, a new code is fetched with the session of the login page.
// What an operator has written stays in its tab, and is gone when another one logs in there.

const CLIENT = "console";
const REDIRECT = `${location.origin}/graphiql`;
const RENEW_BEFORE_SECONDS = 30;

let token = null;
let renewAt = 0;
let { role, scope } = JSON.parse(sessionStorage.getItem("narrowed")) ?? { role: "", scope: "" }; // "": all of them
let operator = null; // whose page this is
let renewing = null; // what is under way, for everybody who waits for a token

const base64url = (bytes) =>
  btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

const random = () => base64url(crypto.getRandomValues(new Uint8Array(32)));

async function authorizeUrl(verifier, state, more = {}) {
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier));
  const query = new URLSearchParams({
    response_type: "code",
    client_id: CLIENT,
    redirect_uri: REDIRECT,
    code_challenge: base64url(new Uint8Array(hash)),
    code_challenge_method: "S256",
    state,
    ...(scope ? { scope } : {}),
    ...more,
  });
  return `/oauth/authorize?${query}`;
}

/** The answer to a code: a token, for whose page this is. */
async function redeem(code, verifier) {
  const answer = await fetch("/oauth/token", {
    method: "POST",
    body: new URLSearchParams({
      grant_type: "authorization_code",
      client_id: CLIENT,
      redirect_uri: REDIRECT,
      code,
      code_verifier: verifier,
    }),
  });
  if (!answer.ok) throw new Error("The login was not accepted.");
  const body = await answer.json();
  const { sub } = JSON.parse(atob(body.access_token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));
  if (operator !== null && operator !== sub) {
    // What is on the page is somebody else's, and what it was about to send is not sent. What it still writes while it goes is
    // gone when the next page begins, which finds that nobody has been here.
    sessionStorage.clear();
    location.reload();
    return new Promise(() => {});
  }
  if (sessionStorage.getItem("operator") !== sub) {
    sessionStorage.clear();
    sessionStorage.setItem("operator", sub);
  }
  operator = sub;
  return body;
}

function take(given) {
  token = given.access_token;
  renewAt = Date.now() + (given.expires_in - RENEW_BEFORE_SECONDS) * 1000;
}

async function goToLogin(more) {
  const verifier = random();
  const state = random();
  sessionStorage.setItem("login", JSON.stringify({ verifier, state }));
  location.assign(await authorizeUrl(verifier, state, more));
  return new Promise(() => {}); // the page is being left
}

async function askQuietly() {
  const verifier = random();
  const state = random();
  const answer = await fetch(await authorizeUrl(verifier, state), { credentials: "same-origin" });
  const landed = new URL(answer.url).searchParams;
  if (!landed.has("code") || landed.get("state") !== state) return goToLogin();
  return redeem(landed.get("code"), verifier);
}

/** Renew the token once for all who wait; what was asked for with another role is dropped when it comes. */
function renew() {
  if (renewing?.scope !== scope) {
    const mine = { scope };
    renewing = mine;
    mine.done = askQuietly().then(
      (given) => {
        if (renewing !== mine) return;
        renewing = null;
        take(given);
      },
      (error) => {
        if (renewing !== mine) return;
        renewing = null;
        throw error;
      },
    );
  }
  return renewing.done;
}

/** Finish a login that has come back, or begin one. */
export async function logIn() {
  const landed = new URLSearchParams(location.search);
  const begun = JSON.parse(sessionStorage.getItem("login"));
  const whose = sessionStorage.getItem("operator");
  sessionStorage.removeItem("login");
  if (begun && landed.has("code") && landed.get("state") === begun.state) {
    history.replaceState(null, "", REDIRECT);
    take(await redeem(landed.get("code"), begun.verifier));
  } else {
    await renew();
  }
  if (role && operator !== whose) await narrowTo("", []); // the role was another's
}

/** A token that is good for the next request. */
export async function bearer() {
  if (Date.now() > renewAt) token = null;
  while (!token) await renew();
  return `Bearer ${token}`;
}

/** Log in again, for what needs a login with two factors that is not long ago. */
export const stepUp = () => goToLogin({ prompt: "login" });

/** The operators' roles with their scopes. */
export async function roles() {
  return (await (await fetch("/.well-known/oauth-authorization-server")).json()).operator_roles;
}

/** The role that was chosen, which stays so over a login and when the page is loaded again. */
export const chosenRole = () => role;

/** Ask for no more than a role's scopes from now on; for all one has, with none. */
export async function narrowTo(name, scopes) {
  role = name;
  scope = scopes.join(" ");
  sessionStorage.setItem("narrowed", JSON.stringify({ role, scope }));
  token = null; // whatever becomes of it, the wider one serves no more
  await renew();
}

export async function logOut() {
  const answer = await fetch("/oauth/logout", { method: "POST" }).catch(() => null);
  if (!answer?.ok) {
    alert("You are still logged in: the gateway did not do it. Try again.");
    return;
  }
  token = null;
  sessionStorage.clear();
  location.assign("/graphiql");
}
