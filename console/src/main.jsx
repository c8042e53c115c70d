import { explorerPlugin } from "@graphiql/plugin-explorer";
import "@graphiql/plugin-explorer/style.css";
import { GraphiQL, HISTORY_PLUGIN } from "graphiql";
import "graphiql/setup-workers/vite";
import "graphiql/style.css";
import { createRoot } from "react-dom/client";

import { examples } from "./examples.js";
import { bearer, chosenRole, logIn, logOut, narrowTo, roles, stepUp } from "./login.js";
import "./page.css";

const explorer = explorerPlugin();

async function ask(params) {
  const answer = await fetch("/graphql", {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "application/json", Authorization: await bearer() },
    body: JSON.stringify(params),
  });
  const said = await answer.json();
  if (said.errors?.[0]?.extensions?.code === "STEP_UP_NEEDED" && confirm(`${said.errors[0].message}\n\nLog in again now?`)) {
    await stepUp();
  }
  return said;
}

/** Lets an operator see what a role of its may see, and no more. */
function Role({ known }) {
  return (
    <label className="role">
      Role{" "}
      <select
        aria-label="Role"
        defaultValue={chosenRole()}
        onChange={(event) => narrowTo(event.target.value, known[event.target.value] ?? [])}
      >
        <option value="">all of mine</option>
        {Object.keys(known).map((name) => (
          <option key={name}>{name}</option>
        ))}
      </select>
    </label>
  );
}

function Console({ known }) {
  return (
    <GraphiQL fetcher={ask} plugins={[HISTORY_PLUGIN, explorer]} defaultTabs={examples} storage={sessionStorage}>
      <GraphiQL.Logo>
        <span className="logo">Loyalty gateway</span>
        <Role known={known} />
        <button className="logout" type="button" onClick={logOut}>
          Log out
        </button>
      </GraphiQL.Logo>
    </GraphiQL>
  );
}

const root = document.getElementById("root");
Promise.all([roles(), logIn()]).then(
  ([known]) => createRoot(root).render(<Console known={known} />),
  (error) => {
    root.textContent = `${error.message} Reload the page to try again.`;
  },
);
