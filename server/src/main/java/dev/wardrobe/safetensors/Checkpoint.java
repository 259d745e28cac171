package dev.wardrobe.safetensors;

import static dev.wardrobe.safetensors.SafetensorsException.quote;

import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.SortedMap;
import java.util.TreeMap;
import org.jspecify.annotations.Nullable;

/**
 * A model directory's weights, seen as one file: {@code model.safetensors}, or else the shards that
 * {@code model.safetensors.index.json} names. Safe for use by several threads; segments taken from
 * it end with {@link #close}.
 */
public final class Checkpoint implements AutoCloseable {
  private static final String SINGLE = "model.safetensors";
  private static final String INDEX = "model.safetensors.index.json";

  private final Path directory;
  private final List<Path> files = new ArrayList<>();
  private final List<SafetensorsFile> shards = new ArrayList<>();
  private final SortedMap<String, TensorInfo> tensors = new TreeMap<>();
  private final Map<String, SafetensorsFile> shardOf = new HashMap<>();

  private Checkpoint(Path directory) {
    this.directory = directory;
  }

  /**
   * Opens every file of the checkpoint in {@code directory}.
   *
   * @throws SafetensorsException if there is none, a shard is missing, damaged or outside of the
   *     directory, or index and shards disagree
   */
  public static Checkpoint open(Path directory) throws SafetensorsException {
    Checkpoint checkpoint = new Checkpoint(directory);
    boolean opened = false;
    try {
      if (Files.exists(directory.resolve(SINGLE))) {
        checkpoint.add(SINGLE, Map.of());
      } else if (Files.exists(directory.resolve(INDEX))) {
        checkpoint.addShards(readIndex(directory.resolve(INDEX)));
      } else {
        throw new SafetensorsException(
            String.format(
                "%s: expected %s or %s, found neither%s",
                directory,
                SINGLE,
                INDEX,
                Files.exists(directory.resolve("pytorch_model.bin"))
                    ? "; pytorch_model.bin is a pickle, which is never read: convert it"
                    : ""));
      }
      opened = true;
      return checkpoint;
    } finally {
      if (!opened) {
        checkpoint.close();
      }
    }
  }

  private void addShards(SortedMap<String, String> shardNames) throws SafetensorsException {
    SortedMap<String, Integer> counts = new TreeMap<>();
    shardNames.values().forEach(shard -> counts.merge(shard, 1, Integer::sum));
    for (Map.Entry<String, Integer> shard : counts.entrySet()) {
      if (!Files.exists(directory.resolve(shard.getKey()))) {
        throw new SafetensorsException(
            String.format(
                "%s: the shard %s, which by the index holds %d tensors, is missing; complete the"
                    + " download",
                directory.resolve(INDEX), quote(shard.getKey()), shard.getValue()));
      }
      add(shard.getKey(), shardNames);
    }
    for (Map.Entry<String, String> entry : shardNames.entrySet()) {
      if (!tensors.containsKey(entry.getKey())) {
        throw new SafetensorsException(
            String.format(
                "%s: tensor %s is not in %s, where the index places it",
                directory.resolve(INDEX), quote(entry.getKey()), quote(entry.getValue())));
      }
    }
  }

  /** Opens one file and takes its tensors, each of which is the only one of its name. */
  private void add(String name, Map<String, String> shardNames) throws SafetensorsException {
    Path file = directory.resolve(name);
    SafetensorsFile shard = SafetensorsFile.open(file);
    shards.add(shard);
    files.add(file);
    for (TensorInfo tensor : shard.tensors().values()) {
      String expected = shardNames.getOrDefault(tensor.name(), name);
      if (!expected.equals(name)) {
        throw new SafetensorsException(
            String.format(
                "%s: holds tensor %s, which the index places in %s",
                file, quote(tensor.name()), quote(expected)));
      }
      SafetensorsFile other = shardOf.putIfAbsent(tensor.name(), shard);
      if (other != null) {
        throw new SafetensorsException(
            String.format(
                "%s: tensor %s is also in %s", file, quote(tensor.name()), other.source()));
      }
      tensors.put(tensor.name(), tensor);
    }
  }

  /** The index's {@code weight_map}: the shard's file name by the tensor's name. */
  private static SortedMap<String, String> readIndex(Path index) throws SafetensorsException {
    SortedMap<String, String> shards = null;
    try {
      if (!Files.isRegularFile(index) || Files.size(index) > BoundedJson.LONGEST_DOCUMENT) {
        throw new SafetensorsException(
            index
                + ": expected a regular file of at most "
                + BoundedJson.LONGEST_DOCUMENT
                + " bytes");
      }
      try (JsonParser parser =
          BoundedJson.parse(MemorySegment.ofArray(Files.readAllBytes(index)))) {
        expect(parser.nextToken() == JsonToken.START_OBJECT, index, "an object");
        while (parser.nextToken() != JsonToken.END_OBJECT) {
          boolean isMap = parser.currentName().equals("weight_map");
          parser.nextToken();
          if (isMap) {
            shards = readWeightMap(parser, index);
          } else {
            parser.skipChildren();
          }
        }
        expect(parser.nextToken() == null, index, "nothing after the object");
      }
    } catch (JsonProcessingException e) {
      throw new SafetensorsException(
          index + ": not the expected JSON: " + e.getOriginalMessage(), e);
    } catch (SafetensorsException e) {
      throw e;
    } catch (IOException e) {
      throw new SafetensorsException(index + ": cannot be read: " + e, e);
    }
    if (shards == null || shards.isEmpty()) {
      throw new SafetensorsException(index + ": expected a weight_map with tensors, there is none");
    }
    return shards;
  }

  private static SortedMap<String, String> readWeightMap(JsonParser parser, Path index)
      throws IOException {
    SortedMap<String, String> shards = new TreeMap<>();
    expect(parser.currentToken() == JsonToken.START_OBJECT, index, "an object as weight_map");
    while (parser.nextToken() != JsonToken.END_OBJECT) {
      String tensor = parser.currentName();
      expect(
          parser.nextToken() == JsonToken.VALUE_STRING,
          index,
          "a file name for tensor " + quote(tensor));
      String shard = parser.getText();
      if (!isPlainName(shard)) {
        throw new SafetensorsException(
            String.format(
                "%s: tensor %s: expected the name of a .safetensors file in this directory, got %s",
                index, quote(tensor), quote(shard)));
      }
      shards.put(tensor, shard);
    }
    return shards;
  }

  private static boolean isPlainName(String name) {
    return name.endsWith(".safetensors")
        && name.length() <= 255
        && name.chars().noneMatch(c -> c == '/' || c == '\\' || c == ':' || c < ' ')
        && !BoundedJson.isMalformed(name);
  }

  private static void expect(boolean met, Path index, String what) throws SafetensorsException {
    if (!met) {
      throw new SafetensorsException(index + ": expected " + what);
    }
  }

  /** The directory it was opened from. */
  public Path directory() {
    return directory;
  }

  /** The weight files, sorted by name. */
  public List<Path> files() {
    return Collections.unmodifiableList(files);
  }

  /** All tensors by name; their offsets are within their own file. */
  public SortedMap<String, TensorInfo> tensors() {
    return Collections.unmodifiableSortedMap(tensors);
  }

  /** The tensor of that name, or null. */
  public @Nullable TensorInfo find(String name) {
    return tensors.get(name);
  }

  /**
   * The tensor of that name.
   *
   * @throws SafetensorsException if there is none
   */
  public TensorInfo require(String name) throws SafetensorsException {
    TensorInfo tensor = find(name);
    if (tensor == null) {
      throw new SafetensorsException(
          directory + ": expected a tensor " + quote(name) + ", found none");
    }
    return tensor;
  }

  /**
   * The bytes of {@code tensor}; see {@link SafetensorsFile#data}.
   *
   * @throws IllegalArgumentException if the tensor is not one of this checkpoint's
   */
  public MemorySegment data(TensorInfo tensor) {
    return shard(tensor).data(tensor);
  }

  /**
   * All values of {@code tensor}; see {@link SafetensorsFile#floats}.
   *
   * @throws SafetensorsException if it is not F32, F16 or BF16, or larger than an array
   */
  public float[] floats(TensorInfo tensor) throws SafetensorsException {
    return shard(tensor).floats(tensor);
  }

  private SafetensorsFile shard(TensorInfo tensor) {
    SafetensorsFile shard = shardOf.get(tensor.name());
    if (shard == null) {
      throw new IllegalArgumentException(directory + ": has no tensor " + tensor);
    }
    return shard;
  }

  /** Unmaps all files; segments taken from it can no longer be read. */
  @Override
  public void close() {
    shards.forEach(SafetensorsFile::close);
  }
}
