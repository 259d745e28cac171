package dev.wardrobe.adapter;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.List;
import java.util.Locale;
import java.util.function.IntPredicate;
import java.util.regex.PatternSyntaxException;
import org.jspecify.annotations.Nullable;

/**
 * A regular expression in the syntax of Python's {@code re}, asked only whether it matches.
 *
 * <p>An expression is evaluated over sets of positions: each node maps the positions where it may
 * begin to those where it may end. So the work is bounded by the product of pattern and text, and
 * an expression that would backtrack for ages is answered at once; a step limit remains for counted
 * repeats of counted repeats. What cannot be told from sets (backreferences, conditionals, atomic
 * groups and possessive repeats) is refused, as is everything that Python refuses.
 *
 * <p>The text is expected to be ASCII without line breaks, as module paths are; where Python's
 * classes differ beyond ASCII is therefore of no interest.
 */
final class PythonRegex {
  private static final int LONGEST_PATTERN = 16_384;
  private static final int DEEPEST = 64;
  private static final int UNBOUNDED = Integer.MAX_VALUE;

  private final String pattern;
  private final Node root;

  private PythonRegex(String pattern, Node root) {
    this.pattern = pattern;
    this.root = root;
  }

  /**
   * Reads an expression.
   *
   * @throws PatternSyntaxException if Python would refuse it, or it uses what is not supported
   */
  static PythonRegex compile(String pattern) {
    if (pattern.length() > LONGEST_PATTERN) {
      throw new PatternSyntaxException(
          "expected at most %d characters, got %d".formatted(LONGEST_PATTERN, pattern.length()),
          pattern,
          -1);
    }
    return new PythonRegex(pattern, new Parser(pattern).parse());
  }

  /** The work that all matching for one adapter may take together; about a second's worth. */
  static final class Steps {
    private static final long MOST = 10_000_000;
    private long taken;

    void take(int count, String pattern) {
      taken += count;
      if (taken > MOST) {
        throw new PatternSyntaxException(
            "matching takes more than %d steps".formatted(MOST), pattern, -1);
      }
    }
  }

  /**
   * {@code re.fullmatch}: whether all of {@code text} matches.
   *
   * @throws PatternSyntaxException if that exceeds {@code steps}
   */
  boolean matchesAll(String text, Steps steps) {
    return run(text, steps).get(text.length());
  }

  /**
   * {@code re.match}: whether {@code text} has a match that begins at its start.
   *
   * @throws PatternSyntaxException if that exceeds {@code steps}
   */
  boolean matchesStart(String text, Steps steps) {
    return !run(text, steps).isEmpty();
  }

  /** Whether the expression is a choice at its outermost level. */
  boolean isChoice() {
    return root instanceof Choice;
  }

  private BitSet run(String text, Steps steps) {
    return new Matcher(pattern, text, steps).ends(root, only(0));
  }

  private static BitSet only(int position) {
    BitSet set = new BitSet();
    set.set(position);
    return set;
  }

  private sealed interface Node {}

  /** One character: in {@code ranges} (pairs of first and last), or not, if negated. */
  private static final class One implements Node {
    final int[] ranges;
    final boolean negated;
    final boolean anyCase;

    One(int[] ranges, boolean negated, boolean anyCase) {
      this.ranges = ranges;
      this.negated = negated;
      this.anyCase = anyCase;
    }

    boolean accepts(char c) {
      boolean found =
          in(c) || (anyCase && (in(Character.toLowerCase(c)) || in(Character.toUpperCase(c))));
      return found != negated;
    }

    private boolean in(int c) {
      for (int i = 0; i < ranges.length; i += 2) {
        if (ranges[i] <= c && c <= ranges[i + 1]) {
          return true;
        }
      }
      return false;
    }
  }

  private record Sequence(List<Node> parts) implements Node {}

  private record Choice(List<Node> options) implements Node {}

  private record Repeat(Node body, int min, int max) implements Node {}

  /** A condition on a position; takes no characters. */
  private enum Anchor implements Node {
    START,
    END,
    BOUNDARY,
    NO_BOUNDARY
  }

  /** A look ahead, or back by {@code width} characters; takes none. */
  private record Look(Node body, boolean positive, boolean behind, int width) implements Node {}

  /** One run over one text. */
  private static final class Matcher {
    private final String pattern;
    private final String text;
    private final Steps steps;

    Matcher(String pattern, String text, Steps steps) {
      this.pattern = pattern;
      this.text = text;
      this.steps = steps;
    }

    BitSet ends(Node node, BitSet starts) {
      steps.take(1 + starts.cardinality(), pattern);
      return switch (node) {
        case One one -> {
          BitSet ends = new BitSet();
          for (int p = starts.nextSetBit(0); p >= 0; p = starts.nextSetBit(p + 1)) {
            if (p < text.length() && one.accepts(text.charAt(p))) {
              ends.set(p + 1);
            }
          }
          yield ends;
        }
        case Sequence sequence -> {
          BitSet at = starts;
          for (Node part : sequence.parts()) {
            at = ends(part, at);
            if (at.isEmpty()) {
              break;
            }
          }
          yield at;
        }
        case Choice choice -> {
          BitSet ends = new BitSet();
          for (Node option : choice.options()) {
            ends.or(ends(option, starts));
          }
          yield ends;
        }
        case Repeat repeat -> repeat(repeat, starts);
        case Anchor anchor -> keep(starts, p -> holds(anchor, p));
        case Look look ->
            keep(
                starts,
                p -> {
                  int from = look.behind() ? p - look.width() : p;
                  boolean found = from >= 0;
                  if (found) {
                    BitSet ends = ends(look.body(), only(from));
                    found = look.behind() ? ends.get(p) : !ends.isEmpty();
                  }
                  return found == look.positive();
                });
      };
    }

    private BitSet repeat(Repeat repeat, BitSet starts) {
      BitSet all = new BitSet();
      BitSet at = starts;
      for (int times = 0; ; times++) {
        if (times >= repeat.min()) {
          int before = all.cardinality();
          all.or(at);
          if (times > repeat.min() && all.cardinality() == before) {
            return all;
          }
        }
        if (times == repeat.max() || at.isEmpty()) {
          return all;
        }
        at = ends(repeat.body(), at);
      }
    }

    private boolean holds(Anchor anchor, int position) {
      return switch (anchor) {
        case START -> position == 0;
        case END -> position == text.length();
        case BOUNDARY -> word(position - 1) != word(position);
        case NO_BOUNDARY -> word(position - 1) == word(position);
      };
    }

    private boolean word(int position) {
      return position >= 0
          && position < text.length()
          && Parser.WORD.accepts(text.charAt(position));
    }

    private static BitSet keep(BitSet positions, IntPredicate condition) {
      BitSet kept = new BitSet();
      positions.stream().filter(condition).forEach(kept::set);
      return kept;
    }
  }

  /** Recursive descent over Python's grammar. */
  private static final class Parser {
    static final One WORD =
        new One(new int[] {'0', '9', 'A', 'Z', '_', '_', 'a', 'z'}, false, false);
    private static final One DIGIT = new One(new int[] {'0', '9'}, false, false);
    private static final One SPACE = new One(new int[] {'\t', '\r', 0x1c, 0x20}, false, false);

    private final String pattern;
    private int at;
    private int depth;
    private boolean anyCase;

    Parser(String pattern) {
      this.pattern = pattern;
    }

    Node parse() {
      if (pattern.startsWith("(?") && pattern.length() > 2 && isFlag(pattern.charAt(2))) {
        int close = pattern.indexOf(')');
        String flags = close < 0 ? "" : pattern.substring(2, close);
        if (!flags.isEmpty() && flags.chars().allMatch(c -> isFlag((char) c))) {
          at = 2;
          anyCase = flags(flags);
          at = close + 1;
        }
      }
      Node node = choice();
      if (at < pattern.length()) {
        throw error("unbalanced parenthesis");
      }
      return node;
    }

    private static boolean isFlag(char c) {
      return "aiLmsux".indexOf(c) >= 0;
    }

    /** Whether the flags ask to ignore case; those that mean nothing here are taken as read. */
    private boolean flags(String flags) {
      if (flags.indexOf('x') >= 0 || flags.indexOf('L') >= 0) {
        throw error("the flags x and L are not supported");
      }
      if (flags.indexOf('i') >= 0 && pattern.chars().anyMatch(c -> c > 127)) {
        throw error("ignoring case is supported for ASCII only");
      }
      return flags.indexOf('i') >= 0;
    }

    private Node choice() {
      if (++depth > DEEPEST) {
        throw error("groups nest deeper than " + DEEPEST);
      }
      List<Node> options = new ArrayList<>();
      options.add(sequence());
      while (take("|")) {
        options.add(sequence());
      }
      depth--;
      return options.size() == 1 ? options.getFirst() : new Choice(List.copyOf(options));
    }

    private Node sequence() {
      List<Node> parts = new ArrayList<>();
      while (at < pattern.length() && peek() != '|' && peek() != ')') {
        char c = pattern.charAt(at++);
        switch (c) {
          case '*' -> quantify(parts, 0, UNBOUNDED);
          case '+' -> quantify(parts, 1, UNBOUNDED);
          case '?' -> quantify(parts, 0, 1);
          case '{' -> {
            int[] bounds = bounds();
            if (bounds == null) {
              parts.add(literal('{'));
            } else {
              quantify(parts, bounds[0], bounds[1]);
            }
          }
          case '.' -> parts.add(new One(new int[] {'\n', '\n'}, true, false));
          case '^' -> parts.add(Anchor.START);
          case '$' -> parts.add(Anchor.END);
          case '[' -> parts.add(set());
          case '(' -> group(parts);
          case '\\' -> parts.add(escape());
          default -> parts.add(literal(c));
        }
      }
      return parts.size() == 1 ? parts.getFirst() : new Sequence(List.copyOf(parts));
    }

    private void quantify(List<Node> parts, int min, int max) {
      if (parts.isEmpty() || parts.getLast() instanceof Anchor) {
        throw error("nothing to repeat");
      }
      if (parts.getLast() instanceof Repeat) {
        throw error("multiple repeat");
      }
      if (take("+")) {
        throw error("possessive repeats are not supported");
      }
      // Lazy or greedy: the same texts match.
      take("?");
      parts.set(parts.size() - 1, new Repeat(parts.getLast(), min, max));
    }

    /** The bounds after an opening brace, or null where it stands for itself. */
    private int @Nullable [] bounds() {
      int start = at;
      if (at < pattern.length() && peek() == '}') {
        return null;
      }
      String low = digits();
      String high = low;
      if (take(",")) {
        high = digits();
      } else if (low.isEmpty()) {
        at = start;
        return null;
      }
      if (!take("}")) {
        at = start;
        return null;
      }
      int min = low.isEmpty() ? 0 : count(low);
      int max = high.isEmpty() ? UNBOUNDED : count(high);
      if (max < min) {
        throw error("min repeat greater than max repeat");
      }
      return new int[] {min, max};
    }

    private String digits() {
      int start = at;
      while (at < pattern.length() && peek() >= '0' && peek() <= '9') {
        at++;
      }
      return pattern.substring(start, at);
    }

    private int count(String digits) {
      if (digits.length() > 6) {
        throw error("repeats of more than 999999 are not supported");
      }
      return Integer.parseInt(digits);
    }

    /** A group, its opening parenthesis taken; adds what it contributes. */
    private void group(List<Node> parts) {
      if (!take("?")) {
        parts.add(closed());
      } else if (take(":")) {
        parts.add(closed());
      } else if (take("P<")) {
        int close = pattern.indexOf('>', at);
        if (close < 0 || !pattern.substring(at, close).matches("[A-Za-z_][A-Za-z0-9_]*")) {
          throw error("bad name of a group");
        }
        at = close + 1;
        parts.add(closed());
      } else if (take("#")) {
        int close = pattern.indexOf(')', at);
        if (close < 0) {
          throw error("missing ), unterminated comment");
        }
        at = close + 1;
      } else if (take("=")) {
        parts.add(new Look(closed(), true, false, 0));
      } else if (take("!")) {
        parts.add(new Look(closed(), false, false, 0));
      } else if (take("<=")) {
        parts.add(behind(true));
      } else if (take("<!")) {
        parts.add(behind(false));
      } else if (scopedFlags()) {
        boolean outer = anyCase;
        int colon = pattern.indexOf(':', at);
        anyCase = scope(pattern.substring(at, colon), outer);
        at = colon + 1;
        parts.add(closed());
        anyCase = outer;
      } else if (at < pattern.length() && isFlag(peek())) {
        throw error("global flags not at the start of the expression");
      } else {
        throw error("this kind of group is not supported");
      }
    }

    private boolean scopedFlags() {
      int i = at;
      while (i < pattern.length() && (isFlag(pattern.charAt(i)) || pattern.charAt(i) == '-')) {
        i++;
      }
      return i > at && i < pattern.length() && pattern.charAt(i) == ':';
    }

    private boolean scope(String flags, boolean outer) {
      String[] onAndOff = flags.split("-", -1);
      if (onAndOff.length > 2
          || (onAndOff.length == 2 && !onAndOff[1].matches("[ims]+"))
          || !onAndOff[0].matches("[imsau]*")) {
        throw error("bad inline flags");
      }
      return (outer || flags(onAndOff[0])) && !(onAndOff.length == 2 && onAndOff[1].contains("i"));
    }

    private Node behind(boolean positive) {
      Node body = closed();
      int width = width(body);
      if (width < 0) {
        throw error("look-behind requires fixed-width pattern");
      }
      return new Look(body, positive, true, width);
    }

    /** Number of characters that {@code node} takes, or -1 if that varies. */
    private static int width(Node node) {
      return switch (node) {
        case One one -> 1;
        case Anchor anchor -> 0;
        case Look look -> 0;
        case Sequence sequence -> {
          long sum = 0;
          for (Node part : sequence.parts()) {
            int width = width(part);
            sum = width < 0 || sum < 0 ? -1 : sum + width;
          }
          yield sum > LONGEST_PATTERN ? -1 : (int) sum;
        }
        case Choice choice -> {
          int first = width(choice.options().getFirst());
          yield choice.options().stream().allMatch(o -> width(o) == first) ? first : -1;
        }
        case Repeat repeat -> {
          long width = (long) width(repeat.body()) * repeat.min();
          yield repeat.min() != repeat.max() || width < 0 || width > LONGEST_PATTERN
              ? -1
              : (int) width;
        }
      };
    }

    private Node closed() {
      Node body = choice();
      if (!take(")")) {
        throw error("missing ), unterminated subpattern");
      }
      // Keeps "(a*)*" apart from "a**".
      return body instanceof Repeat || body instanceof Anchor
          ? new Sequence(List.of(body))
          : body instanceof Choice ? new Sequence(List.of(body)) : body;
    }

    private Node escape() {
      if (at == pattern.length()) {
        throw error("bad escape (end of pattern)");
      }
      char c = pattern.charAt(at++);
      return switch (c) {
        case 'b' -> Anchor.BOUNDARY;
        case 'B' -> Anchor.NO_BOUNDARY;
        case 'A' -> Anchor.START;
        case 'Z' -> Anchor.END;
        default -> {
          One category = category(c);
          yield category != null ? category : literal(escaped(c));
        }
      };
    }

    private static @Nullable One category(char c) {
      return switch (c) {
        case 'd' -> DIGIT;
        case 'D' -> new One(DIGIT.ranges, true, false);
        case 'w' -> WORD;
        case 'W' -> new One(WORD.ranges, true, false);
        case 's' -> SPACE;
        case 'S' -> new One(SPACE.ranges, true, false);
        default -> null;
      };
    }

    /** The character that a backslash and {@code c} stand for. */
    private char escaped(char c) {
      return switch (c) {
        case 'a' -> '\u0007';
        case 'f' -> '\f';
        case 'n' -> '\n';
        case 'r' -> '\r';
        case 't' -> '\t';
        case 'v' -> '\u000b';
        case 'x' -> hexadecimal(2);
        case 'u' -> hexadecimal(4);
        default -> {
          if (c >= '0' && c <= '9') {
            throw error("backreferences and octal escapes are not supported");
          }
          if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) {
            throw error("bad escape \\" + c);
          }
          yield c;
        }
      };
    }

    private char hexadecimal(int length) {
      String digits =
          at + length <= pattern.length() ? pattern.substring(at, at + length) : "incomplete";
      if (!digits.matches("[0-9A-Fa-f]+")) {
        throw error("incomplete escape");
      }
      at += length;
      return (char) Integer.parseInt(digits, 16);
    }

    /** A character class, its opening bracket taken. */
    private Node set() {
      boolean negated = take("^");
      List<int[]> ranges = new ArrayList<>();
      boolean first = true;
      while (true) {
        if (at == pattern.length()) {
          throw error("unterminated character set");
        }
        if (peek() == ']' && !first) {
          at++;
          break;
        }
        first = false;
        One low = member();
        if (at + 1 < pattern.length() && peek() == '-' && pattern.charAt(at + 1) != ']') {
          at++;
          One high = member();
          if (!isCharacter(low) || !isCharacter(high) || high.ranges[0] < low.ranges[0]) {
            throw error("bad character range");
          }
          ranges.add(new int[] {low.ranges[0], high.ranges[0]});
        } else {
          addRanges(ranges, low);
        }
      }
      int[] flat = ranges.stream().flatMapToInt(Arrays::stream).toArray();
      return new One(flat, negated, anyCase);
    }

    private One member() {
      char c = pattern.charAt(at++);
      if (c != '\\') {
        return new One(new int[] {c, c}, false, false);
      }
      if (at == pattern.length()) {
        throw error("unterminated character set");
      }
      char escape = pattern.charAt(at++);
      One category = category(escape);
      if (category != null) {
        return category;
      }
      char plain = escape == 'b' ? '\b' : escaped(escape);
      return new One(new int[] {plain, plain}, false, false);
    }

    private static boolean isCharacter(One one) {
      return !one.negated && one.ranges.length == 2 && one.ranges[0] == one.ranges[1];
    }

    /** Adds what {@code one} accepts, its complement spelled out if it is negated. */
    private static void addRanges(List<int[]> ranges, One one) {
      if (!one.negated) {
        ranges.add(one.ranges);
        return;
      }
      int from = 0;
      for (int i = 0; i < one.ranges.length; i += 2) {
        if (one.ranges[i] > from) {
          ranges.add(new int[] {from, one.ranges[i] - 1});
        }
        from = one.ranges[i + 1] + 1;
      }
      ranges.add(new int[] {from, Character.MAX_VALUE});
    }

    private One literal(char c) {
      return new One(new int[] {c, c}, false, anyCase);
    }

    private char peek() {
      return pattern.charAt(at);
    }

    private boolean take(String text) {
      if (!pattern.startsWith(text, at)) {
        return false;
      }
      at += text.length();
      return true;
    }

    private PatternSyntaxException error(String what) {
      return new PatternSyntaxException(
          what + " at position " + String.format(Locale.ROOT, "%d", at), pattern, at);
    }
  }
}
