package dev.wardrobe.grammar;

import java.math.BigDecimal;
import java.math.BigInteger;
import java.math.RoundingMode;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Numbers within bounds, as they are written: digits, and a fraction unless they are integers; no
 * exponent.
 *
 * @param min least, or null
 * @param max most, or null
 * @param step what they are multiples of, or null
 */
record Numbers(
    boolean integers,
    @Nullable BigDecimal min,
    boolean minExcluded,
    @Nullable BigDecimal max,
    boolean maxExcluded,
    @Nullable BigDecimal step) {

  /** Digits that survive a reader that holds numbers in 64 bits, so that bounds hold there too. */
  private static final int PRECISION = 15;

  private static final int MOST_DIGITS = 60;
  private static final int LARGEST_STEP = 2_000;

  /** These numbers; nothing if there are none. */
  Expr expr(Budget budget) throws GrammarException {
    List<Expr> options = new ArrayList<>();
    // From zero on, then below zero.
    Expr positive = magnitudes(min, minExcluded, max, maxExcluded, false, budget);
    if (positive != null) {
      options.add(positive);
    }
    Expr negative =
        magnitudes(
            max == null ? null : max.negate(),
            maxExcluded,
            min == null ? null : min.negate(),
            minExcluded,
            true,
            budget);
    if (negative != null) {
      options.add(Expr.sequence(Expr.text("-"), negative));
    }
    return new Expr.Choice(options);
  }

  private @Nullable Expr magnitudes(
      @Nullable BigDecimal low,
      boolean lowExcluded,
      @Nullable BigDecimal high,
      boolean highExcluded,
      boolean aboveZero,
      Budget budget)
      throws GrammarException {
    if (high != null && high.signum() < 0) {
      return null;
    }
    BigDecimal from = low == null || low.signum() < 0 ? BigDecimal.ZERO : low;
    boolean given = low != null && from.compareTo(low) == 0;
    boolean fromExcluded = (given && lowExcluded) || (aboveZero && from.signum() == 0);
    int whole = digits(from);
    int digits = integers ? Math.max(JsonText.INTEGER_DIGITS, whole) : Math.max(PRECISION, whole);
    if (high != null) {
      digits = digits(high);
    }
    if (digits > MOST_DIGITS) {
      throw new GrammarException(
          "bounds of more than %d digits are not supported".formatted(MOST_DIGITS));
    }
    int fraction = integers ? 0 : PRECISION;
    if (step != null) {
      fraction = Math.min(fraction, Math.max(0, step.stripTrailingZeros().scale()));
    }
    List<Expr> options = new ArrayList<>();
    for (int scale = 0; scale <= fraction; scale++) {
      BigInteger least = scaled(from, scale, RoundingMode.CEILING);
      if (fromExcluded && new BigDecimal(least, scale).compareTo(from) == 0) {
        least = least.add(BigInteger.ONE);
      }
      BigInteger most = null;
      if (high != null) {
        most = scaled(high, scale, RoundingMode.FLOOR);
        if (highExcluded && new BigDecimal(most, scale).compareTo(high) == 0) {
          most = most.subtract(BigInteger.ONE);
        }
      }
      List<Expr> lengths = new ArrayList<>();
      for (int length = 1; length <= digits; length++) {
        if (scale > 0 && length + scale > PRECISION) {
          break;
        }
        BigInteger first = length == 1 ? BigInteger.ZERO : BigInteger.TEN.pow(length - 1 + scale);
        BigInteger last = BigInteger.TEN.pow(length + scale).subtract(BigInteger.ONE);
        first = first.max(least);
        last = most == null ? last : last.min(most);
        if (first.compareTo(last) <= 0) {
          lengths.add(between(text(first, length + scale), text(last, length + scale), length));
        }
      }
      if (!lengths.isEmpty()) {
        options.add(multiples(Expr.choice(lengths), scale, budget));
      }
    }
    return options.isEmpty() ? null : Expr.choice(options);
  }

  private static int digits(BigDecimal number) {
    return Math.max(1, number.precision() - number.scale());
  }

  private static BigInteger scaled(BigDecimal number, int scale, RoundingMode mode) {
    return number.movePointRight(scale).setScale(0, mode).toBigIntegerExact();
  }

  private static String text(BigInteger number, int length) {
    String digits = number.toString();
    return "0".repeat(length - digits.length()) + digits;
  }

  /** Digits from {@code low} to {@code high}, of one length, with a point behind the first ones. */
  private static Expr between(String low, String high, int point) {
    if (low.isEmpty()) {
      return Expr.EMPTY;
    }
    String zeros = "0".repeat(low.length() - 1);
    String nines = "9".repeat(low.length() - 1);
    if (low.charAt(0) == high.charAt(0)) {
      return Expr.sequence(digit(low.charAt(0), low.charAt(0)), tail(low, high, point));
    }
    List<Expr> options = new ArrayList<>();
    char from = low.charAt(0);
    char to = high.charAt(0);
    if (!low.substring(1).equals(zeros)) {
      options.add(Expr.sequence(digit(from, from), tail(low, "9" + nines, point)));
      from++;
    }
    boolean cut = !high.substring(1).equals(nines);
    char last = cut ? (char) (to - 1) : to;
    if (from <= last) {
      options.add(Expr.sequence(digit(from, last), tail("0" + zeros, "9" + nines, point)));
    }
    if (cut) {
      options.add(Expr.sequence(digit(to, to), tail("0" + zeros, high, point)));
    }
    return Expr.choice(options);
  }

  private static Expr tail(String low, String high, int point) {
    Expr digits = between(low.substring(1), high.substring(1), point - 1);
    return point == 1 && low.length() > 1 ? Expr.sequence(Expr.text("."), digits) : digits;
  }

  private static Expr digit(char low, char high) {
    return Expr.bytes(low, high);
  }

  /** Those of {@code numbers}, which have so many digits behind the point, that are multiples. */
  private Expr multiples(Expr numbers, int scale, Budget budget) throws GrammarException {
    if (step == null) {
      return numbers;
    }
    BigDecimal plain = step.stripTrailingZeros();
    int places = Math.max(0, plain.scale());
    BigInteger unit = plain.movePointRight(places).toBigIntegerExact();
    // A number is n / 10^scale; it is a multiple if n is one of this.
    BigInteger modulus =
        unit.divide(unit.gcd(BigInteger.TEN.pow(places - Math.min(scale, places))));
    if (modulus.equals(BigInteger.ONE)) {
      return numbers;
    }
    if (modulus.compareTo(BigInteger.valueOf(LARGEST_STEP)) > 0) {
      throw new GrammarException(
          "a step of %s is not supported; expected one of at most %d units of its last digit"
              .formatted(step, LARGEST_STEP));
    }
    int count = modulus.intValueExact();
    List<Expr.Edge> edges = new ArrayList<>();
    for (int remainder = 0; remainder < count; remainder++) {
      for (int digit = 0; digit < 10; digit++) {
        edges.add(
            new Expr.Edge(
                remainder, Expr.bytes('0' + digit, '0' + digit), (remainder * 10 + digit) % count));
      }
      edges.add(new Expr.Edge(remainder, Expr.text("."), remainder));
    }
    edges.add(new Expr.Edge(0, Expr.EMPTY, count));
    Automaton steps = Automaton.of(new Expr.Graph(count + 1, edges), budget);
    return new Expr.Language(Automaton.of(numbers, budget).and(steps, budget));
  }
}
