package dev.wardrobe;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.exc.MismatchedInputException;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.util.JsonFormat;
import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.compute.Draw;
import dev.wardrobe.serve.Conversation;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.GenerateResponse;
import java.io.BufferedOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.file.AtomicMoveNotSupportedException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.List;
import java.util.Locale;
import java.util.Objects;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** Answers a file of requests, without a server. */
@Command(
    name = "batch",
    description = "Answer a file of requests, one JSON object a line, all batched together.",
    footer = {
      "",
      "An answer is a line with id, text, token_ids, usage, adapter_digest and finish_reason, and"
          + " with",
      "logprobs and prompt_logprobs where asked for; or with id and error. Without an id, a"
          + " request's is its",
      "line's number. The log-probability of an impossible token is written as -3.4028235E38.",
      "Exit code 0 if every line was dealt with, errors included; 1 if nothing could be started."
    },
    mixinStandardHelpOptions = true)
final class BatchCommand implements Callable<Integer> {
  /** Requests in hand for each place in the batch: enough to keep it full, few enough to hold. */
  private static final int IN_HAND = 4;

  private static final ObjectReader STRICT =
      JsonMapper.builder()
          .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
          .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS)
          .build()
          .reader();

  @Spec private CommandSpec spec = CommandSpec.create();
  @Mixin private final ModelArguments arguments = new ModelArguments(Conversation.UNLIMITED);

  @Option(
      names = "--in",
      paramLabel = "FILE",
      required = true,
      description = "Requests: the fields of wardrobe.v1.GenerateRequest by name.")
  private @Nullable Path in;

  @Option(
      names = "--out",
      paramLabel = "FILE",
      required = true,
      description = "Answers, in the order of the requests.")
  private @Nullable Path out;

  @Option(names = "--json", description = "Print what it came to as one JSON document.")
  private boolean json;

  private long answered;
  private long failed;
  private long tokens;

  /** A line as a request, or what is wrong with it. */
  private record Asked(String id, GenerateRequest request, @Nullable String problem) {}

  /**
   * A line's answer to come.
   *
   * @param bytes what it may grow to
   */
  private record Pending(Asked asked, long bytes, CompletableFuture<GenerateResponse> answer) {}

  @Override
  public Integer call() throws StartException, IOException {
    Path source = Objects.requireNonNull(in);
    Path target = Objects.requireNonNull(out);
    try {
      run(source, target);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new StartException("interrupted; %s was not written".formatted(target), e);
    }
    return 0;
  }

  private void run(Path source, Path target)
      throws StartException, IOException, InterruptedException {
    if (!Files.isReadable(source) || Files.isDirectory(source)) {
      throw new StartException("--in: expected a readable file, got " + source);
    }
    if (Files.isDirectory(target)) {
      throw new StartException("--out: expected a file, got the directory " + target);
    }
    Path folder = target.toAbsolutePath().getParent();
    if (folder == null || !Files.isDirectory(folder) || !Files.isWritable(folder)) {
      throw new StartException(
          "--out: expected a file in a directory that can be written to, got " + target);
    }
    long start = System.nanoTime();
    try (Stack stack = new Stack(arguments, List.of(), AdapterOptions.DEFAULT)) {
      Path unfinished = unfinished(target);
      try {
        try (JsonLines lines = new JsonLines(source);
            OutputStream file = new BufferedOutputStream(Files.newOutputStream(unfinished));
            AnswerLines answers = new AnswerLines(file)) {
          answer(lines, stack, answers);
        }
        if (!unfinished.equals(target)) {
          move(unfinished, target);
        }
      } finally {
        if (!unfinished.equals(target)) {
          Files.deleteIfExists(unfinished);
        }
      }
    }
    double seconds = (System.nanoTime() - start) / 1e9;
    if (json) {
      spec.commandLine()
          .getOut()
          .println(
              JsonMapper.builder()
                  .build()
                  .createObjectNode()
                  .put("out", target.toString())
                  .put("requests", answered + failed)
                  .put("answered", answered)
                  .put("failed", failed)
                  .put("tokens", tokens)
                  .put("seconds", seconds));
      spec.commandLine().getOut().flush();
      return;
    }
    spec.commandLine()
        .getErr()
        .println(
            String.format(
                Locale.ROOT,
                "%d requests, %d answered, %d failed; %d tokens in %.1f s; %s",
                answered + failed,
                answered,
                failed,
                tokens,
                seconds,
                target));
  }

  /** Where to write until all is done; a pipe or device is written to at once. */
  private static Path unfinished(Path target) {
    if (Files.exists(target) && !Files.isRegularFile(target)) {
      return target;
    }
    Path unfinished =
        target.resolveSibling(
            ".%s.%d.unfinished".formatted(target.getFileName(), ProcessHandle.current().pid()));
    unfinished.toFile().deleteOnExit();
    return unfinished;
  }

  private static void move(Path from, Path to) throws IOException {
    try {
      Files.move(from, to, StandardCopyOption.ATOMIC_MOVE);
    } catch (AtomicMoveNotSupportedException e) {
      Files.move(from, to, StandardCopyOption.REPLACE_EXISTING);
    }
  }

  private void answer(JsonLines lines, Stack stack, AnswerLines answers)
      throws IOException, InterruptedException {
    int most = IN_HAND * stack.engine().options().maxSequences();
    // Whole vocabularies are large: so many answers at a time as a part of the heap can hold.
    long room = Runtime.getRuntime().maxMemory() / 4;
    Deque<Pending> pending = new ArrayDeque<>();
    BatchGate gate = new BatchGate(stack.conversation());
    for (JsonLines.Line line = lines.next(); line != null; line = lines.next()) {
      Asked asked = read(line);
      long bytes = bytes(asked.request(), stack);
      while (!pending.isEmpty() && (pending.size() == most || room < bytes)) {
        gate.open();
        Pending first = pending.remove();
        room += first.bytes();
        write(first, answers);
      }
      room -= bytes;
      pending.add(new Pending(asked, bytes, start(asked, gate)));
    }
    gate.open();
    while (!pending.isEmpty()) {
      write(pending.remove(), answers);
    }
  }

  /** What an answer may take on the heap. */
  private static long bytes(GenerateRequest request, Stack stack) {
    int context = stack.engine().contextLength();
    long tokens = request.hasMaxTokens() ? Math.clamp(request.getMaxTokens(), 0, context) : context;
    if (request.getEcho()) {
      long prompt = request.getTokenIdsCount() + (long) request.getPrompt().length();
      tokens += request.getMessagesCount() > 0 ? context : Math.min(prompt, context);
    }
    long token =
        request.getLogprobs() == Draw.ALL
            ? 6L * stack.model().config().vocabulary()
            : 64 + 64L * Math.max(0, request.getLogprobs());
    int choices = Math.clamp(Math.max(request.getN(), request.getBestOf()), 1, 64);
    return tokens * token * choices;
  }

  private static Asked read(JsonLines.Line line) {
    GenerateRequest.Builder request = GenerateRequest.newBuilder();
    String problem = line.problem();
    if (problem == null) {
      problem = parse(line.text(), request);
    }
    String id = request.getId().isEmpty() ? Long.toString(line.number()) : request.getId();
    return new Asked(
        id,
        request.setId(id).build(),
        problem == null ? null : "line %d: %s".formatted(line.number(), problem));
  }

  private static CompletableFuture<GenerateResponse> start(Asked asked, BatchGate gate) {
    return asked.problem() == null
        ? gate.start(asked.request())
        : CompletableFuture.failedFuture(new StartException(asked.problem()));
  }

  /** Reads a request; returns what is wrong with it. Even then its id is read if it can be. */
  private static @Nullable String parse(String text, GenerateRequest.Builder request) {
    JsonNode json;
    try {
      // JsonFormat would let a second value, or a second key of one name, pass unnoticed.
      json = STRICT.readTree(text);
    } catch (MismatchedInputException e) {
      return "expected one JSON object, got more behind it";
    } catch (JsonProcessingException e) {
      return "expected one JSON object, got: " + e.getOriginalMessage();
    }
    if (!json.isObject()) {
      return "expected one JSON object, got " + json.getNodeType().name().toLowerCase(Locale.ROOT);
    }
    try {
      JsonFormat.parser().merge(text, request);
      return null;
    } catch (InvalidProtocolBufferException e) {
      request.clear().setId(json.path("id").asText());
      return "expected the fields of wardrobe.v1.GenerateRequest, got: " + e.getMessage();
    }
  }

  private void write(Pending pending, AnswerLines answers)
      throws IOException, InterruptedException {
    try {
      GenerateResponse answer = pending.answer().get();
      answers.answer(pending.asked().id(), pending.asked().request(), answer);
      answered++;
      tokens += answer.getUsage().getGeneratedTokens();
    } catch (ExecutionException e) {
      Throwable cause = e.getCause() == null ? e : e.getCause();
      String message = cause.getMessage();
      answers.error(pending.asked().id(), message == null ? cause.toString() : message);
      failed++;
    }
  }
}
