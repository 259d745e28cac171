package dev.wardrobe.client.cli;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.wardrobe.client.WardrobeClient;
import dev.wardrobe.client.cli.DemoReport.Training;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.Message;
import dev.wardrobe.v1.PublishAdapterRequest;
import dev.wardrobe.v1.PublishAdapterResponse;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/**
 * An outfit that the base does not have: trained by {@code wardrobe train} beside the running
 * server, published to it, and asked.
 */
final class DemoTraining {
  static final String NAME = "letters";

  /** Held-out conversations that the new adapter is asked. */
  private static final int HELD_OUT = 40;

  private static final ObjectMapper JSON = new ObjectMapper();

  private final Path home;
  private final Path out;

  /**
   * A training run.
   *
   * @param home the launcher's folder
   * @param out where the adapter is written
   */
  DemoTraining(Path home, Path out) {
    this.home = home;
    this.out = out;
  }

  private Path data(String file) {
    return home.resolve("models/demo/data").resolve(file);
  }

  /** What is run, as a user would type it. */
  List<String> command() {
    return List.of(
        home.resolve("wardrobe").toString(),
        "train",
        "--model",
        home.resolve("models/demo/base").toString(),
        "--data",
        data("letters.jsonl").toString(),
        "--out",
        out.toString(),
        "--rank",
        "8",
        "--alpha",
        "16",
        "--batch-size",
        "8",
        "--grad-accum",
        "1",
        "--max-steps",
        "60",
        "--lr",
        "5e-3",
        "--schedule",
        "cosine",
        "--warmup-steps",
        "10",
        "--weight-decay",
        "0",
        "--logging-steps",
        "10");
  }

  /**
   * Trains, publishes to the running server, and asks it.
   *
   * @param before what the base said
   * @param show whether the run's own words are shown
   */
  Training run(WardrobeClient client, String before, boolean show)
      throws IOException, DemoException {
    double seconds = train(show);
    JsonNode first = null;
    JsonNode last = null;
    for (String line : Files.readAllLines(out.resolve("metrics.jsonl"))) {
      JsonNode step = JSON.readTree(line);
      if (step.has("loss")) {
        first = first == null ? step : first;
        last = step;
      }
    }
    if (first == null || last == null) {
      throw new DemoException("the run wrote no metrics to " + out);
    }
    PublishAdapterResponse published =
        client.publishAdapter(PublishAdapterRequest.Header.newBuilder().setName(NAME).build(), out);
    RunningAnswer answer = new RunningAnswer(NAME, () -> {});
    client.start(Demo.question(NAME).build(), answer);
    DemoReport.Answer after = Demo.answer(answer);
    int[] right = heldOut(client);
    return new Training(
        last.path("step").asInt(),
        seconds,
        first.path("loss").asDouble(),
        last.path("loss").asDouble(),
        published.getPublishMs(),
        published.getAdapter().getDigest(),
        before,
        after.text(),
        right[1],
        right[0]);
  }

  private double train(boolean show) throws IOException, DemoException {
    long began = System.nanoTime();
    ProcessBuilder builder = new ProcessBuilder(command());
    Path log = out.resolveSibling(NAME + ".log");
    if (show) {
      builder.inheritIO();
    } else {
      builder.redirectErrorStream(true).redirectOutput(log.toFile());
    }
    builder.redirectInput(ProcessBuilder.Redirect.from(Path.of("/dev/null").toFile()));
    Process process = builder.start();
    // Also when this process is ended by a signal.
    Thread end = new Thread(process::destroy, "wardrobe-train-shutdown");
    Runtime.getRuntime().addShutdownHook(end);
    int exit;
    try {
      exit = process.waitFor();
    } catch (InterruptedException e) {
      process.destroy();
      Thread.currentThread().interrupt();
      throw new DemoException("interrupted", e);
    }
    Runtime.getRuntime().removeShutdownHook(end);
    if (exit != 0) {
      String said = show ? "" : ":\n" + Files.readString(log).strip();
      throw new DemoException("wardrobe train: expected exit code 0, got " + exit + said);
    }
    return (System.nanoTime() - began) / 1e9;
  }

  /** How many of how many answers to conversations that it never saw are the reference's. */
  private int[] heldOut(WardrobeClient client) throws IOException, DemoException {
    List<RunningAnswer> answers = new ArrayList<>();
    List<String> expected = new ArrayList<>();
    for (String line : Files.readAllLines(data("letters-valid.jsonl")).subList(0, HELD_OUT)) {
      JsonNode messages = JSON.readTree(line).path("messages");
      GenerateRequest.Builder request =
          GenerateRequest.newBuilder().setAdapter(NAME).setTemperature(0);
      for (int i = 0; i + 1 < messages.size(); i++) {
        request.addMessages(
            Message.newBuilder()
                .setRole(messages.get(i).path("role").asText())
                .setContent(messages.get(i).path("content").asText()));
      }
      expected.add(messages.get(messages.size() - 1).path("content").asText());
      RunningAnswer answer = new RunningAnswer("held out " + expected.size(), () -> {});
      client.start(request.build(), answer);
      answers.add(answer);
    }
    int right = 0;
    for (int i = 0; i < answers.size(); i++) {
      right += Demo.answer(answers.get(i)).text().equals(expected.get(i)) ? 1 : 0;
    }
    return new int[] {right, answers.size()};
  }
}
