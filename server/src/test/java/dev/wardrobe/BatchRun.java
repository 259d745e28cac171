package dev.wardrobe;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/**
 * One run of the batch command.
 *
 * @param lines its output; empty if it wrote none
 */
record BatchRun(int exit, String err, List<JsonNode> lines) {
  private static final ObjectMapper JSON = new ObjectMapper();

  /** Runs the command on {@code requests}, with files in {@code folder}. */
  static BatchRun of(Path folder, List<String> requests, String... arguments) throws Exception {
    Path in = Files.write(folder.resolve("in.jsonl"), requests);
    Path out = folder.resolve("out.jsonl");
    List<String> all =
        new ArrayList<>(List.of("batch", "--in", in.toString(), "--out", out.toString()));
    all.addAll(List.of(arguments));
    StringWriter err = new StringWriter();
    int exit = Main.commandLine().setErr(new PrintWriter(err)).execute(all.toArray(String[]::new));
    List<JsonNode> lines = new ArrayList<>();
    if (Files.exists(out)) {
      for (String line : Files.readAllLines(out)) {
        lines.add(JSON.readTree(line));
      }
    }
    return new BatchRun(exit, err.toString(), lines);
  }
}
