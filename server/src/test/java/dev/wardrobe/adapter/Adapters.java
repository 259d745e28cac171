package dev.wardrobe.adapter;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URISyntaxException;
import java.net.URL;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;

/** The adapters, models and expectations that tests read. */
final class Adapters {
  static final ObjectMapper JSON = new ObjectMapper();

  private Adapters() {}

  static Path resource(String name) {
    URL url = Adapters.class.getResource("/" + name);
    if (url == null) {
      throw new AssertionError("no resource " + name);
    }
    try {
      return Path.of(url.toURI());
    } catch (URISyntaxException e) {
      throw new AssertionError(e);
    }
  }

  /** A file beside {@code make.py}. */
  static JsonNode expectations(String name) {
    try {
      return JSON.readTree(resource("adapter/" + name).toFile());
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  static List<Path> directories(Path parent) throws IOException {
    try (Stream<Path> entries = Files.list(parent)) {
      return entries.filter(Files::isDirectory).sorted().toList();
    }
  }

  static void copy(Path from, Path to) throws IOException {
    Files.createDirectories(to);
    try (Stream<Path> entries = Files.list(from)) {
      for (Path file : entries.toList()) {
        Files.copy(file, to.resolve(file.getFileName()));
      }
    }
  }
}
