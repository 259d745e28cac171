package dev.wardrobe.client.load;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/**
 * Adapters that {@code wardrobe bench adapters --canaries} made: each answers the same few prompts
 * otherwise than the base and than all the others.
 *
 * @param count of adapters
 * @param prompts token ids of each
 */
public record CanarySet(int count, List<List<Integer>> prompts) {
  private static final String FILE = "wardrobe-bench.json";
  private static final int MOST = 10_000;

  public CanarySet {
    prompts = prompts.stream().map(List::copyOf).toList();
  }

  /**
   * The set in a folder.
   *
   * @throws IOException if there is none, or nobody has seen to it that they can be told apart
   */
  public static CanarySet read(Path folder) throws IOException {
    Path file = folder.resolve(FILE);
    JsonNode root;
    try {
      root = new ObjectMapper().readTree(Files.readString(file));
    } catch (NoSuchFileException e) {
      throw new IOException(
          "%s: expected a folder that 'wardrobe bench adapters --canaries' made".formatted(folder),
          e);
    } catch (JsonProcessingException e) {
      throw new IOException(
          "%s: expected JSON, got: %s".formatted(file, e.getOriginalMessage()), e);
    }
    List<List<Integer>> prompts = new ArrayList<>();
    for (JsonNode prompt : root.path("prompts")) {
      List<Integer> tokens = new ArrayList<>();
      prompt.forEach(token -> tokens.add(token.asInt()));
      prompts.add(tokens);
    }
    int count = root.path("count").asInt();
    if (prompts.isEmpty() || count < 1 || count > MOST) {
      throw new IOException(
          "%s: expected 1 to %d adapters and prompts that tell them apart, got %d and %d; make them"
                  .formatted(file, MOST, count, prompts.size())
              + " with 'wardrobe bench adapters --canaries'");
    }
    return new CanarySet(count, prompts);
  }

  /** The directory of an adapter, and its name under the root. */
  public String name(int index) {
    return String.format(Locale.ROOT, "a%04d", index);
  }
}
