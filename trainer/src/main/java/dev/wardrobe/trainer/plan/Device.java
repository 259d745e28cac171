package dev.wardrobe.trainer.plan;

import com.sun.management.OperatingSystemMXBean;
import java.lang.management.ManagementFactory;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * A place to train with so much memory.
 *
 * @param name as people know it
 * @param gpu whether it is one; else the processor with the machine's memory
 * @param bytes of its memory
 */
public record Device(String name, boolean gpu, long bytes) {
  /** MiB as the cards' own tool reports them, which is at times less than what the name says. */
  private static final Map<String, Long> GPUS =
      new TreeMap<>(
          Map.ofEntries(
              Map.entry("t4", 15_360L),
              Map.entry("v100-16", 16_384L),
              Map.entry("v100-32", 32_768L),
              Map.entry("rtx3060", 12_288L),
              Map.entry("rtx3090", 24_576L),
              Map.entry("rtx4060ti-16", 16_380L),
              Map.entry("rtx4080", 16_376L),
              Map.entry("rtx4090", 24_564L),
              Map.entry("rtx5090", 32_607L),
              Map.entry("l4", 23_034L),
              Map.entry("a10", 23_028L),
              Map.entry("a40", 46_068L),
              Map.entry("a6000", 49_140L),
              Map.entry("l40s", 46_068L),
              Map.entry("a100-40", 40_960L),
              Map.entry("a100-80", 81_920L),
              Map.entry("h100", 81_559L),
              Map.entry("h200", 143_771L),
              Map.entry("b200", 183_359L)));

  private static final Pattern SIZE =
      Pattern.compile("([0-9]{1,7}(?:\\.[0-9]{1,3})?)\\s*([kmgt]?)(i?)b?");

  /** The processor, with all of the machine's memory. */
  public static Device machine() {
    long bytes =
        ManagementFactory.getOperatingSystemMXBean() instanceof OperatingSystemMXBean system
            ? system.getTotalMemorySize()
            : Runtime.getRuntime().maxMemory();
    return new Device("cpu", false, bytes);
  }

  /**
   * A GPU by its name, such as h200, a100-40 or rtx4090, or by the size of its memory, such as
   * 48GiB.
   *
   * @throws IllegalArgumentException if it is neither
   */
  public static Device gpu(String name) {
    String key = name.toLowerCase(Locale.ROOT).replace(" ", "");
    Long mebibytes = GPUS.get(key);
    if (mebibytes != null) {
      return new Device(key, true, mebibytes << 20);
    }
    if (!SIZE.matcher(key).matches() || !Character.isLetter(key.charAt(key.length() - 1))) {
      throw new IllegalArgumentException(
          "--gpu %s: expected the size of its memory, such as 48GiB, or one of %s"
              .formatted(name, String.join(", ", GPUS.keySet())));
    }
    return new Device("gpu of " + name, true, bytes("--gpu", name));
  }

  /**
   * Bytes as people write them: 512MiB, 48GiB, 48GB, 1.5g, or a plain number. KiB, MiB and so on
   * are powers of 1024, as are k, m, g and t alone; KB, MB and so on are powers of 1000.
   *
   * @param what what they are for, for the error
   * @throws IllegalArgumentException if they are not
   */
  public static long bytes(String what, String text) {
    String plain = text.toLowerCase(Locale.ROOT).strip();
    Matcher matcher = SIZE.matcher(plain);
    if (!matcher.matches() && !plain.matches("[0-9]{1,18}")) {
      throw new IllegalArgumentException(
          "%s: expected bytes, such as 512MiB or 48GiB, got '%s'".formatted(what, text));
    }
    if (plain.matches("[0-9]{1,18}")) {
      return Long.parseLong(plain);
    }
    int power = "kmgt".indexOf(matcher.group(2)) + 1;
    boolean decimal = matcher.group(3).isEmpty() && plain.endsWith("b");
    power = matcher.group(2).isEmpty() ? 0 : power;
    return Math.round(
        Double.parseDouble(matcher.group(1)) * StrictMath.pow(decimal ? 1000 : 1024, power));
  }
}
