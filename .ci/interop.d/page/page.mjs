// The page in a real browser, against a server of the embedded model that has a store.
//
// node page.mjs ADDRESS PID ADAPTERS FOLDER: PID is the server's, which is ended to see what the
// page says then; ADAPTERS has the demo's PEFT folders; pictures of the page are left in FOLDER.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

// The packages are kept outside of the repository.
const require = createRequire(pathToFileURL(`${process.env.WARDROBE_NODE}/`));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const [address, pid, adapters, folder] = process.argv.slice(2);
const url = `http://${address}/`;
mkdirSync(folder, { recursive: true });

const browser = await chromium.launch({
  executablePath: process.env.WARDROBE_CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox"],
});
const complaints = [];

async function open(options = {}) {
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 }, ...options });
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => {
    // What the server refuses, the browser reports too; a policy that was broken is ours.
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) {
      complaints.push(message.text());
    }
  });
  await page.goto(url);
  await page.getByText("Connected", { exact: true }).waitFor();
  await page.locator("#send:enabled").waitFor();
  return page;
}

async function view(page, name) {
  await page.getByRole("navigation").getByRole("link", { name }).click();
  await page.getByRole("heading", { name, level: 2 }).waitFor({ state: "attached" });
}

async function ask(page, text) {
  await page.getByLabel("Message", { exact: true }).fill(text);
  await page.getByLabel("Message", { exact: true }).press("Enter");
}

/** Waits until all answers of the last turn have ended. */
async function answered(page) {
  await page.locator(".turn:last-child .answer").first().waitFor();
  await page.waitForFunction(() => document.querySelector(".answer[aria-busy]") === null);
  return page.locator(".turn:last-child .answer");
}

/** Drops files of this machine, folders too, as a person does. */
async function drop(page, ...files) {
  const session = await page.context().newCDPSession(page);
  const data = { items: [], files, dragOperationsMask: 1 };
  for (const type of ["dragEnter", "dragOver", "drop"]) {
    await session.send("Input.dispatchDragEvent", { type, x: 640, y: 500, data });
    if (type === "dragOver") {
      await page.locator("#drop").waitFor();
    }
  }
  await session.detach();
  await page.getByRole("dialog").waitFor();
}

async function publish(page, name, aliases = "") {
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Name", { exact: true }).fill(name);
  await dialog.getByLabel("Aliases").fill(aliases);
  await dialog.getByRole("button", { name: "Publish" }).click();
}

async function send(path, body) {
  const response = await fetch(new URL(path, url), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  assert.equal(response.status, 200, await response.clone().text());
}

function archive(name, source) {
  const path = join(folder, name);
  execFileSync("tar", ["czf", path, "-C", adapters, source]);
  return path;
}

async function audit(page, where) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  const grave = violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
  assert.deepEqual(
    grave.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`),
    [],
    where,
  );
}

/** Whether a process has not ended; one that has may still wait to be asked for its exit code. */
function runs(process) {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${process}/status`, "utf8"));
  } catch {
    return false;
  }
}

const picture = (page, name) => page.screenshot({ path: join(folder, `${name}.png`) });

const checks = {
  async "drops a folder, then an archive, and talks to them"() {
    const page = await open();
    await drop(page, join(adapters, "pirate"));
    assert.equal(await page.getByLabel("Name", { exact: true }).inputValue(), "pirate");
    await picture(page, "add");
    await audit(page, "the dialog");
    await publish(page, "returns", "prod");
    await page.getByText("is published and can be asked for").waitFor();
    await page.getByRole("button", { name: "Close" }).click();
    await drop(page, archive("terse.tar.gz", "terse"));
    assert.equal(await page.getByLabel("Name", { exact: true }).inputValue(), "terse");
    await publish(page, "returns");
    await page.getByRole("dialog").getByText("returns@2").waitFor();
    await page.getByRole("button", { name: "Chat with it" }).click();
    await ask(page, "Where is my order 4172?");
    const answers = await answered(page);
    const last = answers.last();
    assert.equal(await last.getByRole("heading").textContent(), "returns@2");
    assert.match(await last.locator(".figures").textContent(), /returns@2 sha256:[0-9a-f]{12}/);
    await page.close();
  },

  async "chooses a folder, too"() {
    const page = await open();
    await page.getByRole("button", { name: "Add adapter" }).click();
    await page.locator("input[webkitdirectory]").setInputFiles(join(adapters, "json"));
    await publish(page, "chosen");
    await page.getByRole("dialog").getByText("chosen@1").waitFor();
    await page.close();
  },

  async "answers side by side, at the same time"() {
    const page = await open();
    await page.getByLabel("Column 3", { exact: true }).waitFor();
    // Until all three are under way.
    let release;
    const held = new Promise((resolve) => {
      release = resolve;
    });
    await page.route("**/v1/chat/completions", async (route) => {
      await held;
      await route.continue();
    });
    await page.getByLabel("Column 1", { exact: true }).fill("base");
    await page.getByLabel("Column 2", { exact: true }).fill("returns@prod");
    await page.getByLabel("Column 3", { exact: true }).fill("returns@2");
    await ask(page, "When does order 4172 arrive?");
    await page.waitForFunction(() => document.querySelectorAll(".answer[aria-busy]").length === 3);
    release();
    const texts = await (await answered(page)).locator(".text").allTextContents();
    assert.equal(texts.length, 3);
    texts.forEach((text) => assert.notEqual(text, ""));
    assert.equal(new Set(texts).size, 3, `each its own: ${texts}`);
    for (const name of ["Tokens", "TTFT", "Queue", "Swap-in", "Adapter"]) {
      assert.equal(await page.locator(".figures dt", { hasText: new RegExp(`^${name}$`) }).count(), 3);
    }
    await picture(page, "chat-light");
    await page.getByRole("button", { name: "Regenerate" }).click();
    assert.deepEqual(await (await answered(page)).locator(".text").allTextContents(), texts);
    await ask(page, "And the other?");
    await answered(page);
    assert.equal(await page.locator(".turn").count(), 2);
    await page.getByRole("button", { name: "Clear" }).click();
    assert.equal(await page.locator(".turn").count(), 0);
    await page.close();
  },

  async "stops"() {
    const page = await open();
    await page.route("**/v1/chat/completions", () => {});
    await ask(page, "Hello");
    await page.getByRole("button", { name: "Stop" }).click();
    const states = await (await answered(page)).locator(".state").allTextContents();
    assert.deepEqual([...new Set(states)], ["stopped"]);
    await page.close();
  },

  async "sees an alias move, without being loaded again"() {
    const page = await open();
    await view(page, "Adapters");
    const chip = page.locator("tr[data-name=returns] [data-alias=prod]");
    await page.getByText("prod → 1").waitFor();
    await page.getByRole("button", { name: "returns", exact: true }).click();
    await page.getByRole("heading", { name: "Version 2" }).waitFor();
    await send("/v1/adapters/returns/aliases", { alias: "prod", shares: [{ version: "2" }] });
    await chip.filter({ hasText: "prod → 2" }).waitFor();
    await page.locator("#activity li", { hasText: "returns@prod alias set" }).waitFor();
    // And back, by the page's own hand.
    await page.getByRole("button", { name: "Roll back returns@prod" }).click();
    await chip.filter({ hasText: "prod → 1" }).waitFor();
    await page.getByRole("button", { name: "Pin returns@1" }).click();
    await page.getByRole("button", { name: "Unpin returns@1" }).waitFor();
    await picture(page, "adapters-light");
    await page.getByRole("button", { name: "Unpin returns@1" }).click();
    await page.getByRole("button", { name: "Pin returns@1", exact: true }).waitFor();
    // A split and a shadow, by the dialog.
    await page.getByRole("button", { name: "New alias" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("Alias", { exact: true }).fill("canary");
    await dialog.getByRole("button", { name: "Divide among another" }).click();
    await dialog.getByLabel("Version", { exact: true }).last().selectOption("1");
    await dialog.getByLabel("Weight").last().fill("3");
    await audit(page, "the alias dialog");
    await dialog.getByRole("button", { name: "Save" }).click();
    await page.getByText("2 (25 %), 1 (75 %)").waitFor();
    // What is still pointed at is not deleted unasked.
    await page.getByRole("button", { name: "Delete returns@1" }).click();
    await dialog.getByRole("button", { name: "Delete" }).click();
    await dialog.getByRole("alert").getByText("point elsewhere first").waitFor();
    await dialog.getByRole("button", { name: "Keep it" }).click();
    await page.getByLabel("Find").fill("nothing of this name");
    await page.getByText("None of this name or place.").waitFor();
    await page.close();
  },

  async "says what went wrong, where it did, as text"() {
    const page = await open();
    const name = "<img src=x>";
    await page.getByLabel("Column 2", { exact: true }).fill(name);
    await ask(page, "Hello");
    const answers = await answered(page);
    const alert = answers.nth(1).getByRole("alert");
    assert.ok((await alert.textContent()).includes(name));
    assert.equal(await page.locator("main img").count(), 0);
    assert.equal(await answers.first().getByRole("alert").count(), 0);
    await picture(page, "error");
    await page.getByRole("textbox", { name: "Message", exact: true }).focus();
    const broken = join(folder, "broken.zip");
    writeFileSync(broken, "this is no archive");
    await drop(page, broken);
    await publish(page, "broken");
    await page.getByRole("dialog").getByRole("alert").getByText("adapter_config.json").waitFor();
    await page.keyboard.press("Escape");
    const damaged = join(folder, "damaged.tar.gz");
    writeFileSync(damaged, readFileSync(archive("whole.tar.gz", "sql")).subarray(0, 5000));
    await drop(page, damaged);
    await publish(page, "damaged");
    await page.getByRole("dialog").getByRole("alert").getByText("cannot be read").waitFor();
    await page.close();
  },

  async "works with keys alone"() {
    const page = await open();
    await page.getByLabel("Column 3", { exact: true }).waitFor();
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to content");
    const focusOn = async (name, most = 40) => {
      for (let i = 0; i < most; i++) {
        const [text, outline] = await page.evaluate(() => {
          const element = document.activeElement;
          const box = element.closest(".ask") ?? element;
          const style = getComputedStyle(element);
          // The whole section has it after a link was followed: there is nothing to point out.
          const shown = element.id === "main" || style.outlineStyle !== "none"
            || getComputedStyle(box).boxShadow !== "none";
          return [element.getAttribute("aria-label") || element.textContent || element.id, shown];
        });
        assert.ok(outline, `the focus on '${text}' is seen`);
        if (text.trim() === name) {
          return;
        }
        await page.keyboard.press("Tab");
      }
      assert.fail(`'${name}' is not reached`);
    };
    await focusOn("Adapters");
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "Adapters" }).waitFor();
    await focusOn("›chosen");
    await page.keyboard.press("Enter");
    await page.getByRole("button", { name: "Chat chosen@1" }).waitFor();
    await focusOn("Chat chosen@1");
    await page.keyboard.press("Enter");
    assert.equal(await page.getByLabel("Column 3", { exact: true }).inputValue(), "chosen@1");
    await page.keyboard.type("Hello");
    await page.keyboard.press("Enter");
    await answered(page);
    await page.goto(`${url}#live`);
    const chart = page.getByRole("group", { name: /^Throughput/ });
    await chart.focus();
    await page.waitForTimeout(2500);
    await page.keyboard.press("ArrowLeft");
    await page.locator(".readout .where").first().waitFor();
    await page.close();
  },

  async "has no grave fault of accessibility, in both themes"() {
    for (const colorScheme of ["light", "dark"]) {
      const page = await open({ colorScheme });
      await ask(page, "Where is my order 4172?");
      await answered(page);
      await audit(page, `the chat, ${colorScheme}`);
      await picture(page, `chat-${colorScheme}`);
      await view(page, "Adapters");
      await page.getByRole("button", { name: "returns", exact: true }).click();
      await page.getByRole("heading", { name: "Version 2" }).waitFor();
      await audit(page, `the adapters, ${colorScheme}`);
      await picture(page, `adapters-${colorScheme}`);
      await view(page, "Live");
      await page.getByText("Memory by kind").first().waitFor();
      await page.waitForTimeout(4500);
      await page.getByText("As a table").first().click();
      await audit(page, `the charts, ${colorScheme}`);
      await page.getByText("As a table").first().click();
      await picture(page, `live-${colorScheme}`);
      await page.close();
    }
  },

  async "shows training runs with their curves, where there are any"() {
    const page = await open();
    await view(page, "Training");
    await page.getByRole("button", { name: /^letters finished/ }).click();
    await page.getByRole("group", { name: /^Loss. Training \d.\d{3}, Evaluation \d.\d{3}/ }).waitFor();
    await page.locator(".chart", { hasText: "Loss" }).getByText("As a table").click();
    await page.locator(".chart", { hasText: "Loss" }).locator("tbody tr").nth(3).waitFor();
    await audit(page, "the training runs");
    await picture(page, "training");
    await page.route("**/v1/runs", (route) => route.fulfill({ status: 404, body: "{}" }));
    await page.reload();
    // The section that was open is not there any more.
    await page.locator("#send:enabled").waitFor();
    assert.equal(await page.getByRole("link", { name: "Training" }).isVisible(), false);
    await page.close();
  },

  async "asks for a key, once, and keeps it in the tab"() {
    const context = await browser.newContext();
    const page = await context.newPage();
    await page.route("**/v1/**", (route) =>
      route.request().headers().authorization === "Bearer wk-of-the-test"
        ? route.continue()
        : route.fulfill({
            status: 401,
            contentType: "application/json",
            body: JSON.stringify({ error: { message: "expected a key, got none" } }),
          }));
    await page.goto(url);
    const dialog = page.getByRole("dialog");
    await dialog.getByText("expected a key, got none").waitFor();
    assert.equal(await dialog.count(), 1);
    await audit(page, "the dialog for a key");
    await dialog.getByLabel("API key").fill("wk-of-the-test");
    await dialog.getByRole("button", { name: "Use it" }).click();
    await page.getByText("Connected", { exact: true }).waitFor();
    await page.locator("#send:enabled").waitFor();
    await ask(page, "Hello");
    assert.equal(await (await answered(page)).getByRole("alert").count(), 0);
    const kept = await page.evaluate(() => [JSON.stringify(sessionStorage), JSON.stringify(localStorage), document.cookie]);
    assert.deepEqual(kept.map((where) => where.includes("wk-of-the-test")), [true, false, false]);
    await context.close();
  },

  async "keeps the theme that was chosen"() {
    const page = await open({ colorScheme: "light" });
    const back = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const light = await back();
    await page.getByRole("button", { name: "Theme: Automatic" }).click();
    await page.getByRole("button", { name: "Theme: Light" }).click();
    const dark = await back();
    assert.notEqual(dark, light);
    await page.reload();
    await page.getByRole("button", { name: "Theme: Dark" }).waitFor();
    assert.equal(await back(), dark);
    await page.close();
  },

  async "fits a phone"() {
    for (const width of [360, 390]) {
      const page = await open({ viewport: { width, height: 844 } });
      await ask(page, "Where is my order 4172?");
      await answered(page);
      const fits = async (where) => {
        const [content, wide] = await page.evaluate(() => {
          const found = [...document.querySelectorAll("body *")].find(
            (element) => element.getBoundingClientRect().right > innerWidth + 1
              && element.closest(".scroll, .visually-hidden, .skip") === null
              && getComputedStyle(element).display !== "none",
          );
          return [document.documentElement.scrollWidth, found?.outerHTML.slice(0, 200)];
        });
        assert.ok(content <= width, `${where} at ${width}: ${content} wide, by ${wide}`);
      };
      await fits("the chat");
      await picture(page, `chat-${width}`);
      await page.getByText("Settings").click();
      await fits("the settings");
      await view(page, "Adapters");
      await page.getByRole("button", { name: "returns", exact: true }).click();
      await page.getByRole("heading", { name: "Version 2" }).waitFor();
      await fits("the adapters");
      await picture(page, `adapters-${width}`);
      await view(page, "Live");
      await page.getByText("Memory by kind").first().waitFor();
      await fits("the charts");
      await page.getByRole("button", { name: "Add adapter" }).click();
      await fits("the dialog");
      await picture(page, `add-${width}`);
      await audit(page, `at ${width}`);
      await page.close();
    }
  },

  async "says that the server is gone"() {
    const page = await open();
    await page.getByLabel("Column 3", { exact: true }).waitFor();
    process.kill(Number(pid));
    await page.getByText("Not connected").waitFor({ timeout: 60_000 });
    // It ends requests under way before it closes its port, and refuses others meanwhile.
    while (runs(pid)) {
      await page.waitForTimeout(100);
    }
    await ask(page, "Are you there?");
    const answers = await answered(page);
    await answers.first().getByRole("alert").getByText("cannot be reached").waitFor();
    await picture(page, "gone");
    await page.close();
  },
};

let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    assert.deepEqual(complaints, [], "the browser complains of nothing");
    console.log(`page: ${name}: passed`);
  } catch (error) {
    failed++;
    complaints.length = 0;
    console.error(`page: ${name}: FAILED\n${error.stack}`);
    for (const context of browser.contexts()) {
      for (const page of context.pages()) {
        await picture(page, `failed-${failed}`).catch(() => {});
        await page.close();
      }
    }
  }
}
await browser.close();
process.exit(failed === 0 ? 0 : 1);
