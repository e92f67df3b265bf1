// A client of the demo in TypeScript. Its types are generated from the demo's OpenAPI document:
//
//   npm ci
//   npx openapi-typescript http://127.0.0.1:8080/openapi.json --output schema.d.ts
//   npx tsc && node client.js http://127.0.0.1:8080
//
// It prints a line for each thing that it does:
//
//   Completed: 1087 observations
//   replayed: true
//   Sleep: InProgress, Canceled
//   Unreliable failed: UNRELIABLE (500)
//   refused: INVALID_REQUEST (422)

import { randomUUID } from "node:crypto";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

type Job = components["schemas"]["AsyncJob"];

const client = createClient<paths>({ baseUrl: process.argv[2] ?? "http://127.0.0.1:8080" });

function hasEnded(job: Job): boolean {
  return job.status === "Completed" || job.status === "Failed" || job.status === "Canceled";
}

/** Waits for the end of a job. The job that is passed in gives the type of the result. */
async function ended<J extends Job>(job: J): Promise<J> {
  while (!hasEnded(job)) {
    const { data, error } = await client.GET("/jobs/{id}", { params: { path: { id: job.id }, query: { wait: 20 } } });
    if (error) throw new Error(`${error.code}: ${error.detail}`);
    job = data as J;
  }
  return job;
}

/** The states of a job, by server-sent events. */
async function* follow(id: string): AsyncGenerator<Job> {
  const { data, error } = await client.GET("/jobs/{id}/events", { params: { path: { id } }, parseAs: "stream" });
  if (error) throw new Error(`${error.code}: ${error.detail}`);
  if (!data) return;
  let text = "";
  for await (const chunk of data.pipeThrough(new TextDecoderStream())) {
    const events = (text + chunk).split("\n\n");
    text = events.pop() ?? "";
    for (const event of events) {
      const line = event.split("\n").find((line) => line.startsWith("data: "));
      if (line) yield JSON.parse(line.slice("data: ".length)) as Job;
    }
  }
}

/** Submits a job with typed request and result, waits for its end, and submits it again under the same key. */
async function processData(): Promise<void> {
  const submit = () =>
    client.POST("/api/process-data", { params: { header: { "Idempotency-Key": key } }, body: { category: "rain" } });
  const key = randomUUID();
  const { data, error } = await submit();
  if (error) throw new Error(`${error.code}: ${error.detail}`);
  const job = await ended(data);
  console.log(`${job.status}: ${job.result?.processedCount} observations`);
  const { response } = await submit();
  console.log(`replayed: ${response.headers.get("idempotent-replayed")}`);
}

/** Follows a job, and cancels it when it runs. */
async function cancel(): Promise<void> {
  const { data, error } = await client.POST("/api/sleep", { body: { seconds: 600 } });
  if (error) throw new Error(`${error.code}: ${error.detail}`);
  const statuses = new Set<Job["status"]>();
  for await (const job of follow(data.id)) {
    if (job.status !== "Queued") statuses.add(job.status);
    if (job.status === "InProgress" && job.cancelRequestedAt === null) {
      await client.POST("/jobs/{id}/cancel", { params: { path: { id: job.id } } });
    }
  }
  console.log(`Sleep: ${[...statuses].join(", ")}`);
}

/** Reads the error of a job that fails. */
async function fail(): Promise<void> {
  const { data, error } = await client.POST("/api/unreliable", { body: { failureRate: 1 } });
  if (error) throw new Error(`${error.code}: ${error.detail}`);
  const job = await ended(data);
  console.log(`${job.name} failed: ${job.error?.code} (${job.error?.status})`);
}

/** Sends a request that the compiler refuses, and so does the service. */
async function refuse(): Promise<void> {
  // @ts-expect-error: a number is expected.
  const { error } = await client.POST("/api/sleep", { body: { seconds: "two" } });
  console.log(`refused: ${error?.code} (${error?.status})`);
}

await processData();
await cancel();
await fail();
await refuse();
