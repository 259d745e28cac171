package dev.wardrobe;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.util.JsonFormat;
import dev.wardrobe.adapter.AdapterOptions;
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

  private long answered;
  private long failed;
  private long tokens;

  /** A line's answer to come. */
  private record Pending(
      String id, GenerateRequest request, CompletableFuture<GenerateResponse> answer) {}

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
    long start = System.nanoTime();
    try (Stack stack = new Stack(arguments, List.of(), AdapterOptions.DEFAULT)) {
      Path unfinished = unfinished(target);
      try {
        try (JsonLines lines = new JsonLines(source);
            OutputStream file = new BufferedOutputStream(Files.newOutputStream(unfinished));
            AnswerLines answers = new AnswerLines(file)) {
          answer(
              lines,
              stack.conversation(),
              answers,
              IN_HAND * stack.engine().options().maxSequences());
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
    spec.commandLine()
        .getErr()
        .println(
            "%d requests, %d answered, %d failed; %d tokens in %.1f s; %s"
                .formatted(
                    answered + failed,
                    answered,
                    failed,
                    tokens,
                    (System.nanoTime() - start) / 1e9,
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

  private void answer(JsonLines lines, Conversation conversation, AnswerLines answers, int inHand)
      throws IOException, InterruptedException {
    Deque<Pending> pending = new ArrayDeque<>();
    BatchGate gate = new BatchGate(conversation);
    for (JsonLines.Line line = lines.next(); line != null; line = lines.next()) {
      if (pending.size() == inHand) {
        gate.open();
        write(pending.remove(), answers);
      }
      pending.add(start(line, gate));
    }
    gate.open();
    while (!pending.isEmpty()) {
      write(pending.remove(), answers);
    }
  }

  private static Pending start(JsonLines.Line line, BatchGate gate) {
    String number = Long.toString(line.number());
    GenerateRequest.Builder request = GenerateRequest.newBuilder();
    String problem = line.problem();
    if (problem == null) {
      problem = parse(line.text(), request);
    }
    String id = request.getId().isEmpty() ? number : request.getId();
    GenerateRequest parsed = request.setId(id).build();
    if (problem == null) {
      return new Pending(id, parsed, gate.start(parsed));
    }
    return new Pending(
        id,
        parsed,
        CompletableFuture.failedFuture(
            new StartException("line %s: %s".formatted(number, problem))));
  }

  /** Reads a request; returns what is wrong with it. Even then its id is read if it can be. */
  private static @Nullable String parse(String text, GenerateRequest.Builder request) {
    JsonNode json;
    try {
      // JsonFormat would let a second value, or a second key of one name, pass unnoticed.
      json = STRICT.readTree(text);
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
      answers.answer(pending.id(), pending.request(), answer);
      answered++;
      tokens += answer.getUsage().getGeneratedTokens();
    } catch (ExecutionException e) {
      Throwable cause = e.getCause() == null ? e : e.getCause();
      String message = cause.getMessage();
      answers.error(pending.id(), message == null ? cause.toString() : message);
      failed++;
    }
  }
}
