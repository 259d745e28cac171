package dev.wardrobe.trainer;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.google.protobuf.Timestamp;
import dev.wardrobe.trainer.report.StepMetrics;
import dev.wardrobe.v1.GetRunResponse;
import dev.wardrobe.v1.Run;
import dev.wardrobe.v1.TrainingPoint;
import java.io.BufferedInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.channels.Channels;
import java.nio.channels.FileChannel;
import java.nio.channels.SeekableByteChannel;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * Folders that {@code wardrobe train} writes to, as somebody finds them who only reads: nothing in
 * them is believed, a run may be writing there, and a name that is asked for is compared with those
 * that are there, never opened.
 */
final class RunFolders {
  private static final int MOST_RUNS = 1000;

  /** Folders that are looked at below one, runs or not. */
  private static final int MOST_FOLDERS = 10_000;

  /** More points than a screen has. */
  static final int MOST_POINTS = 4000;

  private static final int LONGEST_LINE = 1 << 16;
  private static final int LARGEST_CONFIG = 1 << 20;
  private static final long LARGEST_METRICS = 1L << 30;
  private static final int LONGEST_NAME = 200;
  private static final Duration FRESH = Duration.ofMinutes(2);
  private static final String WEIGHTS = "adapter_model.safetensors";
  private static final String CONFIG = "adapter_config.json";
  private static final ObjectMapper MAPPER = new ObjectMapper();

  private final List<Path> roots;

  // For one thread at a time.
  private @Nullable Curves latest;

  /** What was read of a file when it was so long and so old. */
  private record Curves(Path file, long size, FileTime changed, GetRunResponse response) {}

  RunFolders(List<Path> roots) {
    this.roots = roots.stream().map(root -> root.toAbsolutePath().normalize()).toList();
  }

  /** All runs, those that changed last first. */
  List<Run> list() throws IOException {
    List<Run> runs = new ArrayList<>();
    for (Map.Entry<String, Path> each : folders().entrySet()) {
      runs.add(run(each.getKey(), each.getValue(), tail(each.getValue())));
    }
    runs.sort(
        Comparator.<Run>comparingLong(run -> run.getChanged().getSeconds())
            .reversed()
            .thenComparing(Run::getName));
    return runs.subList(0, Math.min(runs.size(), MOST_RUNS));
  }

  /** A run with its curves, or null if there is none of that name. */
  synchronized @Nullable GetRunResponse get(String name) throws IOException {
    Path folder = folders().get(name);
    if (folder == null) {
      return null;
    }
    Path file = folder.resolve(StepMetrics.FILE);
    long size = Files.size(file);
    FileTime changed = Files.getLastModifiedTime(file);
    Curves known = latest;
    if (known != null
        && known.file().equals(file)
        && known.size() == size
        && known.changed().equals(changed)) {
      // The state may be another: it follows the clock.
      Run run = known.response().getRun();
      return known.response().toBuilder()
          .setRun(run.toBuilder().setState(state(folder, run.getProblem())))
          .build();
    }
    Reader reader = new Reader();
    try (InputStream in = new BufferedInputStream(Files.newInputStream(file))) {
      reader.read(in);
    }
    GetRunResponse response =
        GetRunResponse.newBuilder()
            .setRun(run(name, folder, reader))
            .addAllPoints(reader.points)
            .build();
    latest = new Curves(file, size, changed, response);
    return response;
  }

  /** Runs by their names. */
  private Map<String, Path> folders() throws IOException {
    Map<String, Path> found = new LinkedHashMap<>();
    for (Path root : roots) {
      if (isRun(root)) {
        add(found, root);
      }
      int looked = 0;
      try (DirectoryStream<Path> children = Files.newDirectoryStream(root)) {
        for (Path child : children) {
          if (++looked > MOST_FOLDERS) {
            break;
          }
          if (Files.isDirectory(child, LinkOption.NOFOLLOW_LINKS) && isRun(child)) {
            add(found, child);
          }
        }
      }
    }
    return found;
  }

  private static boolean isRun(Path folder) {
    return Files.isRegularFile(folder.resolve(StepMetrics.FILE), LinkOption.NOFOLLOW_LINKS);
  }

  private static void add(Map<String, Path> found, Path folder) {
    String name = Objects.toString(folder.getFileName(), "run");
    if (found.putIfAbsent(name, folder) != null) {
      Path parent = folder.getParent();
      found.putIfAbsent(
          (parent == null ? "" : Objects.toString(parent.getFileName(), "")) + "/" + name, folder);
    }
  }

  /** What the end of a run's file says. */
  private static Reader tail(Path folder) {
    Reader reader = new Reader();
    try (SeekableByteChannel channel = FileChannel.open(folder.resolve(StepMetrics.FILE))) {
      long from = Math.max(0, channel.size() - LONGEST_LINE);
      channel.position(from);
      InputStream in = new BufferedInputStream(Channels.newInputStream(channel));
      if (from > 0) {
        // The line that this is in the middle of.
        for (int next = in.read(); next >= 0 && next != '\n'; next = in.read()) {}
      }
      reader.read(in);
    } catch (IOException e) {
      reader.problem = StepMetrics.FILE + " cannot be read: " + e.getMessage();
    }
    return reader;
  }

  private static Run run(String name, Path folder, Reader reader) throws IOException {
    Instant changed = Files.getLastModifiedTime(folder.resolve(StepMetrics.FILE)).toInstant();
    Run.Builder run =
        Run.newBuilder()
            .setName(name)
            .setStep(reader.step)
            .setEpoch(reader.epoch)
            .setTokens(reader.tokens)
            .setTokensPerSecond(reader.tokensPerSecond)
            .setMemoryBytes(reader.memory)
            .setBase(base(folder))
            .setProblem(reader.problem)
            .setState(state(folder, reader.problem))
            .setChanged(
                Timestamp.newBuilder()
                    .setSeconds(changed.getEpochSecond())
                    .setNanos(changed.getNano()));
    if (reader.loss != null) {
      run.setLoss(reader.loss);
    }
    if (reader.evaluation != null) {
      run.setEvalLoss(reader.evaluation);
    }
    return run.build();
  }

  private static Run.State state(Path folder, String problem) throws IOException {
    if (!problem.isEmpty()) {
      return Run.State.STATE_BROKEN;
    }
    Instant changed = Files.getLastModifiedTime(folder.resolve(StepMetrics.FILE)).toInstant();
    Path weights = folder.resolve(WEIGHTS);
    // One that goes on from its checkpoints writes steps after the adapter that it left before.
    if (Files.exists(weights)
        && !Files.getLastModifiedTime(weights).toInstant().isBefore(changed)) {
      return Run.State.STATE_FINISHED;
    }
    return changed.isAfter(Instant.now().minus(FRESH))
        ? Run.State.STATE_RUNNING
        : Run.State.STATE_STOPPED;
  }

  /** What the adapter's configuration calls its base; empty if it says nothing of it. */
  private static String base(Path folder) {
    Path file = folder.resolve(CONFIG);
    try (InputStream in = Files.newInputStream(file)) {
      byte[] bytes = in.readNBytes(LARGEST_CONFIG);
      String base = MAPPER.readTree(bytes).path("base_model_name_or_path").asText("");
      return base.length() > LONGEST_NAME ? base.substring(0, LONGEST_NAME) + "…" : base;
    } catch (IOException e) {
      // Not there yet, or not to be read: it is for the reader's information alone.
      return "";
    }
  }

  /** Lines of {@code metrics.jsonl}, as they come: what the last said, and points. */
  private static final class Reader {
    final List<TrainingPoint> points = new ArrayList<>();
    int step;
    double epoch;
    @Nullable Double loss;
    @Nullable Double evaluation;
    long tokens;
    double tokensPerSecond;
    long memory;
    String problem = "";

    /** Of steps without evaluation, so many make one point. */
    private int every = 1;

    private long lines;

    void read(InputStream in) throws IOException {
      ByteArrayOutputStream line = new ByteArrayOutputStream();
      long bytes = 0;
      for (int next = in.read(); next >= 0; next = in.read()) {
        if (next == '\n') {
          if (!take(line.toByteArray())) {
            return;
          }
          line.reset();
        } else {
          line.write(next);
        }
        if (line.size() > LONGEST_LINE || ++bytes > LARGEST_METRICS) {
          problem = "%s: expected lines of at most %d bytes, and %d in all, got more";
          problem = problem.formatted(StepMetrics.FILE, LONGEST_LINE, LARGEST_METRICS);
          return;
        }
      }
      // What has no end yet is being written.
    }

    private boolean take(byte[] line) throws IOException {
      lines++;
      JsonNode json;
      try {
        json = MAPPER.readTree(line);
      } catch (JsonProcessingException e) {
        json = MAPPER.missingNode();
      }
      if (!json.path("step").isInt() || json.path("step").intValue() < 0) {
        problem = "%s: expected a step on line %d, got something else";
        problem = problem.formatted(StepMetrics.FILE, lines);
        return false;
      }
      step = json.path("step").intValue();
      epoch = Objects.requireNonNullElse(number(json, "epoch"), 0.0);
      Double lossHere = number(json, "loss");
      Double evaluated = number(json, "eval_loss");
      loss = lossHere == null ? loss : lossHere;
      evaluation = evaluated == null ? evaluation : evaluated;
      tokens = Math.max(0, json.path("tokens").asLong());
      tokensPerSecond = Objects.requireNonNullElse(number(json, "tokens_per_second"), 0.0);
      memory = Math.max(0, json.path("memory").asLong());
      if (evaluated != null || lines % every == 0) {
        TrainingPoint.Builder point = TrainingPoint.newBuilder().setStep(step);
        if (lossHere != null) {
          point.setLoss(lossHere);
        }
        if (evaluated != null) {
          point.setEvalLoss(evaluated);
        }
        Double rate = number(json, "lr");
        if (rate != null) {
          point.setLearningRate(rate);
        }
        Double norm = number(json, "grad_norm");
        if (norm != null) {
          point.setGradientNorm(norm);
        }
        points.add(point.build());
        thin();
      }
      return true;
    }

    /** Leaves out every second point that is no evaluation, or of nothing else every second. */
    private void thin() {
      if (points.size() <= MOST_POINTS) {
        return;
      }
      every *= 2;
      List<TrainingPoint> left = new ArrayList<>();
      boolean leave = false;
      for (TrainingPoint point : points) {
        if (point.hasEvalLoss()) {
          left.add(point);
        } else {
          leave = !leave;
          if (!leave) {
            left.add(point);
          }
        }
      }
      if (left.size() > MOST_POINTS / 2 + MOST_POINTS / 4) {
        for (int i = left.size() - 2; i > 0; i -= 2) {
          left.remove(i);
        }
      }
      points.clear();
      points.addAll(left);
    }

    private static @Nullable Double number(JsonNode json, String field) {
      JsonNode value = json.path(field);
      return value.isNumber() && Double.isFinite(value.doubleValue()) ? value.doubleValue() : null;
    }
  }
}
