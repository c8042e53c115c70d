import { explorerPlugin } from "@graphiql/plugin-explorer";
import "@graphiql/plugin-explorer/style.css";
import { GraphiQL, HISTORY_PLUGIN } from "graphiql";
import "graphiql/setup-workers/vite";
import "graphiql/style.css";
import { createRoot } from "react-dom/client";

import { examples } from "./examples.js";
import { bearer, logIn, logOut } from "./login.js";
import "./page.css";

const explorer = explorerPlugin();

async function ask(params) {
  const answer = await fetch("/graphql", {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "application/json", Authorization: await bearer() },
    body: JSON.stringify(params),
  });
  return answer.json();
}

function Console() {
  return (
    <GraphiQL fetcher={ask} plugins={[HISTORY_PLUGIN, explorer]} defaultTabs={examples} initialQuery={examples[0].query}>
      <GraphiQL.Logo>
        <span className="logo">Loyalty gateway</span>
        <button className="logout" type="button" onClick={logOut}>
          Log out
        </button>
      </GraphiQL.Logo>
    </GraphiQL>
  );
}

const root = document.getElementById("root");
logIn().then(
  () => createRoot(root).render(<Console />),
  (error) => {
    root.textContent = `${error.message} Reload the page to try again.`;
  },
);
