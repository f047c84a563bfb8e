// Reads an AsyncAPI document (a file) with the parser of the AsyncAPI project: it must have no error and no warning that it could do without, and
// hold the messages' schemas whole.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const name = "@asyncapi/parser";
let failed = 0;
const check = (what, good, more = "") => {
    console.log(`${good ? "ok" : "FAILED"} ${name}: ${what}${good ? "" : ` ${more}`}`);
    if (!good) failed += 1;
};

const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[2], "utf8"));
// 0 is an error, 1 a warning.
const bad = diagnostics.filter((one) => one.severity <= 1);
check("the document has no error and no warning", bad.length === 0, JSON.stringify(bad.slice(0, 5), null, 1));
if (document) {
    const channels = document.channels().all().map((one) => one.id()).sort();
    check("channels", JSON.stringify(channels) === '["controls","dead","events","mailbox","tasks"]', channels.join(" "));
    const actions = document.operations().all().map((one) => one.action());
    check("operations", actions.filter((one) => one === "receive").length === 3 && actions.length === 5, actions.join(" "));
    for (const id of ["task", "control", "event"]) {
        const payload = document.components().messages().get(id)?.payload();
        check(`the schema of ${id}`, payload !== undefined && payload.json() !== undefined && Object.keys(payload.json()).length > 0);
    }
} else {
    check("the document can be read", false);
}
// A judge that never refuses shows nothing.
for (const [what, harm] of [
    ["without its channels' messages", (broken) => delete broken.components.messages],
    ["of another version", (broken) => (broken.asyncapi = "9.0.0")],
    ["with an operation on no channel", (broken) => (broken.operations.tell.channel = { $ref: "#/channels/nowhere" })],
]) {
    const broken = JSON.parse(readFileSync(process.argv[2], "utf8"));
    harm(broken);
    const found = await new Parser().parse(JSON.stringify(broken));
    check(`a document ${what} is refused`, found.diagnostics.some((one) => one.severity === 0));
}
process.exit(failed === 0 ? 0 : 1);
