package dev.wardrobe.trainer.checkpoint;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.NavigableMap;
import java.util.Set;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/**
 * A run's checkpoints: folders {@code step-N}, each a PEFT directory with the optimizer's state and
 * {@code state.json} beside it, and {@code best-N}, the adapter of the best evaluation so far. A
 * folder is there whole or not at all; the last few are kept.
 */
public final class Checkpoints {
  /** The folder's name in the output folder. */
  public static final String FOLDER = "checkpoints";

  private static final String STATE = "state.json";
  private static final int FORMAT = 1;
  private static final int LARGEST_STATE = 1 << 20;
  private static final Pattern NAME = Pattern.compile("(step|best)-(\\d{8})");
  private static final ObjectMapper MAPPER = new ObjectMapper();

  private final Path output;
  private final Path folder;
  private final int keep;

  /**
   * A state that can be gone on from.
   *
   * @param folder where its adapter and its optimizer's state are
   */
  public record Checkpoint(Path folder, RunIdentity identity, RunState state) {}

  /**
   * @param output the run's folder, which exists
   * @param keep how many to keep, at least 1
   */
  public Checkpoints(Path output, int keep) {
    this.output = output;
    this.folder = output.resolve(FOLDER);
    this.keep = keep;
  }

  /**
   * Whether a folder holds anything to lose.
   *
   * @param beginnings names of files that a run makes before it has done anything: one that was
   *     refused may be given again
   */
  public static boolean used(Path output, Set<String> beginnings) throws IOException {
    if (!Files.isDirectory(output)) {
      return false;
    }
    try (Stream<Path> all = Files.list(output)) {
      return all.map(path -> path.getFileName() + "")
          .anyMatch(name -> !beginnings.contains(name) && !name.startsWith(Disk.UNFINISHED));
    }
  }

  /** Removes what a run that was killed has begun and not completed. */
  public void tidy() throws IOException {
    Disk.tidy(output);
    Disk.tidy(folder);
  }

  /**
   * The latest checkpoint, or null if there is none.
   *
   * @throws CheckpointException if it is damaged
   * @throws IOException if it cannot be read
   */
  public @Nullable Checkpoint latest() throws IOException {
    NavigableMap<Integer, Path> steps = folders("step");
    if (steps.isEmpty()) {
      return null;
    }
    Map.Entry<Integer, Path> last = steps.lastEntry();
    Path file = last.getValue().resolve(STATE);
    try {
      if (Files.size(file) > LARGEST_STATE) {
        throw new CheckpointException("expected at most %d bytes".formatted(LARGEST_STATE));
      }
      JsonNode json = MAPPER.readTree(Files.readAllBytes(file));
      if (json.path("format").asInt() != FORMAT) {
        throw new CheckpointException(
            "expected format %d, got %s".formatted(FORMAT, json.path("format")));
      }
      RunState state = RunState.of(json.path("state"));
      if (state.step() != last.getKey()) {
        throw new CheckpointException("expected the state of its step, got " + state.step());
      }
      return new Checkpoint(last.getValue(), RunIdentity.of(json.path("run")), state);
    } catch (CheckpointException | JsonProcessingException | NoSuchFileException e) {
      throw new CheckpointException(
          "%s cannot be gone on from: %s; delete that folder to go on from the checkpoint before it"
              .formatted(
                  last.getValue(),
                  e instanceof NoSuchFileException ? "it has no " + STATE : e.getMessage()),
          e);
    }
  }

  /**
   * Writes a checkpoint, and removes those beyond what is kept. One of that step that is there
   * already is left: it holds the same.
   *
   * @param content its adapter and its optimizer's state
   * @throws IOException if the disk refuses; then the earlier ones are still there
   */
  public void save(RunIdentity identity, RunState state, Disk.Content content) throws IOException {
    Files.createDirectories(folder);
    Path target = path("step", state.step());
    if (!Files.exists(target)) {
      Disk.folder(
          target,
          to -> {
            content.writeTo(to);
            ObjectNode json = JsonNodeFactory.instance.objectNode();
            json.put("format", FORMAT);
            json.set("state", state.json());
            json.set("run", identity.json());
            Files.writeString(to.resolve(STATE), json.toPrettyString() + "\n");
          });
    }
    NavigableMap<Integer, Path> steps = folders("step");
    for (Path old :
        List.copyOf(steps.headMap(state.step(), true).values()).reversed().stream()
            .skip(keep)
            .toList()) {
      Disk.delete(old);
    }
  }

  /**
   * Keeps the adapter of the best evaluation, in place of the one before.
   *
   * @param content the adapter
   */
  public void best(int step, Disk.Content content) throws IOException {
    Files.createDirectories(folder);
    Path target = path("best", step);
    if (!Files.exists(target)) {
      Disk.folder(target, content);
    }
    for (Path other : folders("best").values()) {
      if (!other.equals(target)) {
        Disk.delete(other);
      }
    }
  }

  /** Where the best evaluation's adapter is. */
  public Path best(int step) {
    return path("best", step);
  }

  private Path path(String kind, int step) {
    return folder.resolve(String.format(Locale.ROOT, "%s-%08d", kind, step));
  }

  private NavigableMap<Integer, Path> folders(String kind) throws IOException {
    NavigableMap<Integer, Path> found = new TreeMap<>();
    try (Stream<Path> all = Files.list(folder)) {
      for (Path path : (Iterable<Path>) all::iterator) {
        Matcher matcher = NAME.matcher(path.getFileName() + "");
        if (matcher.matches() && matcher.group(1).equals(kind)) {
          found.put(Integer.parseInt(matcher.group(2)), path);
        }
      }
    } catch (NoSuchFileException e) {
      // None was written yet.
    }
    return found;
  }
}
