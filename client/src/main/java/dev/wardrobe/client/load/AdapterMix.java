package dev.wardrobe.client.load;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.SplittableRandom;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Adapters, and which of them a request asks for. An empty name is the base.
 *
 * @param names the most popular first
 * @param pick how one is chosen
 * @param exponent of Zipf's law: the i-th of them is asked for in proportion to 1 / i^exponent
 */
public record AdapterMix(List<String> names, Pick pick, double exponent) {
  private static final int MOST = 1 << 20;
  private static final Pattern RANGE = Pattern.compile("(.*)\\{(\\d{1,9})\\.\\.(\\d{1,9})}(.*)");

  /** How one is chosen. */
  public enum Pick {
    /** Each as likely. */
    UNIFORM,
    /** Few often, many seldom. */
    ZIPF,
    /** One after the other. */
    ROUND_ROBIN,
    /** Each stream has its own. */
    EACH
  }

  public AdapterMix {
    names = List.copyOf(names);
  }

  /**
   * Reads a list of names.
   *
   * @param text names with commas between; {@code a{0000..0031}} are 32 of them, {@code none} is
   *     the base
   * @param pick {@code uniform}, {@code zipf:1.0}, {@code round-robin} or {@code each}
   * @throws IllegalArgumentException if it is something else
   */
  public static AdapterMix parse(String text, String pick) {
    List<String> names = names(text);
    String word = pick.toLowerCase(Locale.ROOT);
    if (word.startsWith("zipf")) {
      double exponent = 1;
      try {
        if (word.length() > 4) {
          exponent = word.charAt(4) == ':' ? Double.parseDouble(word.substring(5)) : -1;
        }
      } catch (NumberFormatException e) {
        exponent = -1;
      }
      if (exponent >= 0 && exponent <= 100) {
        return new AdapterMix(names, Pick.ZIPF, exponent);
      }
    } else {
      for (Pick each : Pick.values()) {
        if (each.name().toLowerCase(Locale.ROOT).replace('_', '-').equals(word)) {
          return new AdapterMix(names, each, 0);
        }
      }
    }
    throw new IllegalArgumentException(
        "--pick: expected uniform, zipf:1.0, round-robin or each, got '%s'".formatted(pick));
  }

  /** The names that a list stands for. */
  static List<String> names(String text) {
    List<String> names = new ArrayList<>();
    for (String item : text.split(",", -1)) {
      String name = item.strip();
      if (name.isEmpty()) {
        throw new IllegalArgumentException(
            "--adapters: expected names with commas between, such as sql,a{0000..0031}, or none for"
                + " the base, got '%s'".formatted(text));
      }
      Matcher range = RANGE.matcher(name);
      if (range.matches()) {
        String from = range.group(2);
        int least = Integer.parseInt(from);
        int most = Integer.parseInt(range.group(3));
        if (most < least || names.size() + (most - least) >= MOST) {
          throw new IllegalArgumentException(
              "--adapters: expected a rising range of at most %,d names, got '%s'"
                  .formatted(MOST, name));
        }
        for (int i = least; i <= most; i++) {
          String number = String.format(Locale.ROOT, "%0" + from.length() + "d", i);
          names.add(range.group(1) + number + range.group(4));
        }
      } else {
        names.add(name.equals("none") ? "" : name);
      }
    }
    return names;
  }

  /** Which one a request asks for. */
  final class Chooser {
    private final double[] upTo;

    private Chooser() {
      upTo = new double[pick == Pick.ZIPF ? names.size() : 0];
      double sum = 0;
      for (int i = 0; i < upTo.length; i++) {
        sum += Math.pow(i + 1.0, -exponent);
        upTo[i] = sum;
      }
    }

    String choose(long request, int stream, SplittableRandom random) {
      int count = names.size();
      return names.get(
          switch (pick) {
            case UNIFORM -> random.nextInt(count);
            case ROUND_ROBIN -> (int) (request % count);
            case EACH -> stream % count;
            case ZIPF -> {
              int at = Arrays.binarySearch(upTo, random.nextDouble() * upTo[count - 1]);
              yield Math.min(at < 0 ? -at - 1 : at + 1, count - 1);
            }
          });
    }
  }

  Chooser chooser() {
    return new Chooser();
  }

  @Override
  public String toString() {
    if (names.equals(List.of(""))) {
      return "base";
    }
    String many = names.size() + (names.size() == 1 ? " adapter" : " adapters");
    return switch (pick) {
      case UNIFORM -> many + ", uniform";
      case ROUND_ROBIN -> many + ", in turn";
      case EACH -> many + ", one each";
      case ZIPF -> many + ", Zipf " + exponent;
    };
  }
}
