// Writes conversations with LangChain.js; run by node in a folder where @langchain/redis is installed.
//
//     node peers.mjs
//
// Input and output are those of peers.py.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const require = createRequire(pathToFileURL(`${process.cwd()}/package.json`));
const { RedisChatMessageHistory } = require("@langchain/redis");
const { createClient } = createRequire(require.resolve("@langchain/redis"))("redis");
const { AIMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage, mapChatMessagesToStoredMessages } =
  require("@langchain/core/messages");

const PNG =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

const messages = () => ({
  system: new SystemMessage("Be brief."),
  user: new HumanMessage({ content: "What is the weather? \u{1f600}", additional_kwargs: { lang: "en" } }),
  image: new HumanMessage({
    content: [
      { type: "text", text: "And here?" },
      { type: "image_url", image_url: { url: `data:image/png;base64,${PNG}` } },
    ],
    name: "bob",
  }),
  calls: new AIMessage({
    content: "",
    id: "run-1",
    tool_calls: [
      { id: "a", name: "weather", args: { city: "Paris" }, type: "tool_call" },
      { id: "b", name: "weather", args: { city: "Oslo" }, type: "tool_call" },
    ],
    usage_metadata: { input_tokens: 3, output_tokens: 5, total_tokens: 8 },
    response_metadata: { model_name: "m" },
  }),
  "result-a": new ToolMessage({ content: "sunny", tool_call_id: "a", name: "weather", artifact: { c: [21.5] } }),
  "result-b": new ToolMessage({ content: "snow", tool_call_id: "b", status: "error" }),
  answer: new AIMessage({ content: "Sunny in Paris, snow in Oslo.", id: "run-2" }),
  yes: new HumanMessage("yes"),
  "answer-2": new AIMessage("Fine."),
  narrator: new ChatMessage("Meanwhile.", "narrator"),
});

for await (const line of createInterface({ input: process.stdin })) {
  const [, url, actions] = JSON.parse(line);
  const client = createClient({ url });
  await client.connect();
  const read = [];
  for (const action of actions) {
    const history = new RedisChatMessageHistory({ sessionId: action.thread, client, ...action.options });
    for (const name of action.add ?? []) {
      await history.addMessage(messages()[name] ?? new HumanMessage(name.slice("text:".length)));
    }
    if (action.read) read.push(mapChatMessagesToStoredMessages(await history.getMessages()));
  }
  await client.quit();
  console.log(JSON.stringify(read));
}
