package dev.wardrobe.client.cli;

import dev.wardrobe.v1.MemoryUse;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/** Resident bytes by what they hold, as lines of text. */
final class MemoryTable {
  private MemoryTable() {}

  static List<String> lines(MemoryUse memory) {
    List<String> lines = new ArrayList<>();
    long total = 0;
    total += line(lines, "base, 4-bit codes", memory.getBasePacked());
    total += line(lines, "base, absmax", memory.getBaseAbsmax());
    total += line(lines, "base, nested absmax", memory.getBaseNestedAbsmax());
    total += line(lines, "base, 16/32-bit linears", memory.getBaseDense());
    total += line(lines, "embeddings and head", memory.getEmbeddings());
    total += line(lines, "norms and biases", memory.getNormsAndBiases());
    total += line(lines, "adapters", memory.getAdapters());
    total += line(lines, "KV cache", memory.getKvCache());
    total += line(lines, "workspace", memory.getWorkspace());
    lines.add("%-24s %,14d bytes".formatted("total", total));
    if (memory.getBitsPerWeight() > 0) {
      lines.add(
          String.format(
              Locale.ROOT, "%-24s %14.3f", "bits per 4-bit weight", memory.getBitsPerWeight()));
    }
    return lines;
  }

  private static long line(List<String> lines, String what, long bytes) {
    if (bytes > 0) {
      lines.add(String.format(Locale.ROOT, "%-24s %,14d bytes", what, bytes));
    }
    return bytes;
  }
}
