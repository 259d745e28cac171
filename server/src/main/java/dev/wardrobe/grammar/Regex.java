package dev.wardrobe.grammar;

import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

/**
 * Regular expressions, in the syntax that Java, JavaScript and Python have in common, turned into
 * automata. What a language of texts cannot say, or the three read differently, is refused.
 *
 * <p>Classes are the least that the three agree on, so that what is matched here is matched by all:
 * {@code .} is any character but a line's end, {@code \d}, {@code \w} and {@code \s} are ASCII's,
 * {@code ^} and {@code $} are the text's very start and end.
 */
final class Regex {
  static final int LONGEST = 16_384;
  private static final int DEEPEST = 100;
  private static final int MOST_REPEATS = 100_000;

  private static final CodePoints DIGIT = CodePoints.ranges('0', '9');
  private static final CodePoints WORD = CodePoints.ranges('0', '9', 'A', 'Z', '_', '_', 'a', 'z');
  private static final CodePoints SPACE = CodePoints.ranges('\t', '\r', ' ', ' ');

  /** All that one of the three takes for a blank. */
  private static final CodePoints BLANK =
      CodePoints.ranges(
          '\t', '\r', 0x1c, ' ', 0x85, 0x85, 0xa0, 0xa0, 0x1680, 0x1680, 0x180e, 0x180e, 0x2000,
          0x200a, 0x2028, 0x2029, 0x202f, 0x202f, 0x205f, 0x205f, 0x3000, 0x3000, 0xfeff, 0xfeff);

  private static final CodePoints LINE_END =
      CodePoints.ranges('\n', '\n', '\r', '\r', 0x85, 0x85, 0x2028, 0x2029);

  private static final Map<String, CodePoints> PROPERTIES = new ConcurrentHashMap<>();

  private final String pattern;
  private final Spelling spelling;
  private final Budget budget;
  private int at;
  private int depth;
  private boolean anyCase;
  private boolean dotAll;

  private Regex(String pattern, Spelling spelling, Budget budget) {
    this.pattern = pattern;
    this.spelling = spelling;
    this.budget = budget;
  }

  /** The texts that a pattern matches as a whole. */
  static Automaton whole(String pattern, Spelling spelling, Budget budget) throws GrammarException {
    return Automaton.of(new Regex(pattern, spelling, budget).parse(), budget);
  }

  /** The texts in which a pattern matches somewhere. */
  static Automaton within(String pattern, Spelling spelling, Budget budget)
      throws GrammarException {
    Expr found = new Regex(pattern, spelling, budget).parse();
    Expr any = Expr.any(spelling.of(CodePoints.ALL));
    return Automaton.of(Expr.sequence(any, found, any), budget);
  }

  /** Whether a language takes a character for a blank, and another may not. */
  static boolean isBlank(int c) {
    return BLANK.contains(c);
  }

  private Expr parse() throws GrammarException {
    if (pattern.length() > LONGEST) {
      throw new GrammarException(
          "a regular expression of %d characters; at most %d are supported"
              .formatted(pattern.length(), LONGEST));
    }
    if (pattern.startsWith("(?") && pattern.indexOf(')') > 2) {
      String flags = pattern.substring(2, pattern.indexOf(')'));
      if (flags.matches("[isu]+")) {
        anyCase = flags.indexOf('i') >= 0;
        dotAll = flags.indexOf('s') >= 0;
        at = flags.length() + 3;
      }
    }
    Expr expr = choice();
    if (at < pattern.length()) {
      throw error("closes a group that is not open");
    }
    return expr;
  }

  private Expr choice() throws GrammarException {
    if (++depth > DEEPEST) {
      throw error("groups nest deeper than " + DEEPEST);
    }
    List<Expr> options = new ArrayList<>();
    options.add(sequence());
    while (take("|")) {
      options.add(sequence());
    }
    depth--;
    return Expr.choice(options);
  }

  private Expr sequence() throws GrammarException {
    List<Expr> parts = new ArrayList<>();
    while (at < pattern.length() && peek() != '|' && peek() != ')') {
      Expr atom = atom();
      parts.add(atom instanceof Expr.Anchor ? unrepeated(atom) : quantified(atom));
    }
    return new Expr.Sequence(List.copyOf(parts));
  }

  private Expr atom() throws GrammarException {
    int c = pattern.codePointAt(at);
    at += Character.charCount(c);
    return switch (c) {
      case '.' -> spelled(dotAll ? CodePoints.ALL : LINE_END.not());
      case '^' -> Expr.Anchor.START;
      case '$' -> Expr.Anchor.END;
      case '[' -> spelled(set());
      case '(' -> group();
      case '\\' -> escape();
      case '*', '+', '?' -> throw error("nothing to repeat", at - 1);
      case '{' -> {
        if (pattern.startsWith(",", at) || pattern.substring(at).matches("(?s)\\d+(,\\d*)?\\}.*")) {
          throw error("nothing to repeat; a brace that stands for itself is \\{", at - 1);
        }
        yield literal(c);
      }
      default -> literal(c);
    };
  }

  private Expr unrepeated(Expr anchor) throws GrammarException {
    if (at < pattern.length() && "*+?{".indexOf(peek()) >= 0) {
      throw error("an anchor cannot be repeated");
    }
    return anchor;
  }

  private Expr quantified(Expr atom) throws GrammarException {
    if (at == pattern.length()) {
      return atom;
    }
    int min;
    int max;
    switch (peek()) {
      case '*' -> {
        min = 0;
        max = Expr.UNBOUNDED;
      }
      case '+' -> {
        min = 1;
        max = Expr.UNBOUNDED;
      }
      case '?' -> {
        min = 0;
        max = 1;
      }
      case '{' -> {
        int close = pattern.indexOf('}', at);
        String bounds = close < 0 ? "" : pattern.substring(at + 1, close);
        if (bounds.matches(",\\d*")) {
          throw error("{%s} is read in different ways; write {0%s}".formatted(bounds, bounds));
        }
        if (!bounds.matches("\\d+(,\\d*)?")) {
          return atom;
        }
        String[] ends = bounds.split(",", -1);
        min = count(ends[0]);
        max = ends.length == 1 ? min : ends[1].isEmpty() ? Expr.UNBOUNDED : count(ends[1]);
        if (max != Expr.UNBOUNDED && max < min) {
          throw error("{%s}: the most is less than the least".formatted(bounds));
        }
        at = close;
      }
      default -> {
        return atom;
      }
    }
    at++;
    if (take("+")) {
      throw error("possessive repetitions are not supported", at - 1);
    }
    // Lazy or not: the same texts match.
    take("?");
    if (at < pattern.length() && "*+?".indexOf(peek()) >= 0) {
      throw error("a repetition of a repetition; put the inner one into a group");
    }
    return Expr.repeat(atom, min, max);
  }

  private int count(String digits) throws GrammarException {
    if (digits.length() > 6 || Integer.parseInt(digits) > MOST_REPEATS) {
      throw error("repetitions of more than " + MOST_REPEATS + " are not supported");
    }
    return Integer.parseInt(digits);
  }

  private Expr group() throws GrammarException {
    int start = at - 1;
    if (take("?")) {
      if (take("<") || take("P<")) {
        int close = pattern.indexOf('>', at);
        if (close < 0 || !pattern.substring(at, close).matches("[A-Za-z_][A-Za-z0-9_]*")) {
          throw error("look-behind is not supported, and a group's name needs a letter", start);
        }
        at = close + 1;
      } else if (take("=") || take("!")) {
        throw error("look-ahead is not supported", start);
      } else if (!take(":")) {
        throw error("this kind of group is not supported", start);
      }
    }
    Expr body = choice();
    if (!take(")")) {
      throw error("a group that is not closed", start);
    }
    // So that its parts' anchors are not taken for one that stands alone.
    return new Expr.Sequence(List.of(body));
  }

  /** One of these characters; an automaton in itself where they are many, since it is repeated. */
  private Expr spelled(CodePoints characters) throws GrammarException {
    Expr expr = spelling.of(characters);
    return characters.size() <= 4
        ? expr
        : new Expr.Language(Automaton.of(expr, budget).merged(budget));
  }

  private Expr literal(int c) throws GrammarException {
    return spelled(cased(CodePoints.one(c)));
  }

  private CodePoints cased(CodePoints set) throws GrammarException {
    if (!anyCase) {
      return set;
    }
    // It looks at each of them.
    budget.work(set.count());
    return set.inAnyCase();
  }

  private Expr escape() throws GrammarException {
    if (at < pattern.length() && peek() == 'A') {
      at++;
      return Expr.Anchor.START;
    }
    if (at < pattern.length() && peek() == 'z') {
      at++;
      return Expr.Anchor.END;
    }
    return spelled(cased(escaped()));
  }

  /** What a backslash, which has been read, and what follows stand for. */
  private CodePoints escaped() throws GrammarException {
    if (at == pattern.length()) {
      throw error("a backslash at the end", at - 1);
    }
    int start = at - 1;
    int c = pattern.codePointAt(at);
    at += Character.charCount(c);
    return switch (c) {
      case 'd' -> DIGIT;
      case 'D' -> DIGIT.not();
      case 'w' -> WORD;
      case 'W' -> WORD.not();
      case 's' -> SPACE;
      case 'S' -> BLANK.not();
      case 't' -> CodePoints.one('\t');
      case 'n' -> CodePoints.one('\n');
      case 'r' -> CodePoints.one('\r');
      case 'f' -> CodePoints.one('\f');
      case 'v' -> CodePoints.one(0x0b);
      case 'x' -> CodePoints.one(hexadecimal(2, start));
      case 'u' -> unicode(start);
      case 'p' -> property(start);
      case 'P' -> property(start).not();
      case 'b', 'B' -> throw error("word boundaries are not supported", start);
      default -> {
        if (c >= '0' && c <= '9') {
          throw error("references back and octal escapes are not supported", start);
        }
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) {
          throw error("the escape \\%c is not supported".formatted(c), start);
        }
        yield CodePoints.one(c);
      }
    };
  }

  private CodePoints unicode(int start) throws GrammarException {
    int c;
    if (take("{")) {
      int close = pattern.indexOf('}', at);
      String digits = close < 0 ? "" : pattern.substring(at, close);
      if (!digits.matches("[0-9A-Fa-f]{1,6}")) {
        throw error("\\u{ needs one to six hexadecimal digits and }", start);
      }
      c = Integer.parseInt(digits, 16);
      at = close + 1;
    } else {
      c = hexadecimal(4, start);
      if (Character.isHighSurrogate((char) c) && take("\\u")) {
        int low = hexadecimal(4, start);
        if (Character.isLowSurrogate((char) low)) {
          c = Character.toCodePoint((char) c, (char) low);
        }
      }
    }
    if (c > Character.MAX_CODE_POINT || (c >= 0xd800 && c <= 0xdfff)) {
      throw error("no character has the number %x".formatted(c), start);
    }
    return CodePoints.one(c);
  }

  private int hexadecimal(int length, int start) throws GrammarException {
    String digits = at + length <= pattern.length() ? pattern.substring(at, at + length) : "";
    if (!digits.matches("[0-9A-Fa-f]+")) {
      throw error("expected %d hexadecimal digits".formatted(length), start);
    }
    at += length;
    return Integer.parseInt(digits, 16);
  }

  private CodePoints property(int start) throws GrammarException {
    String name;
    if (take("{")) {
      int close = pattern.indexOf('}', at);
      if (close < 0) {
        throw error("a property that is not closed", start);
      }
      name = pattern.substring(at, close);
      at = close + 1;
    } else if (at < pattern.length()) {
      name = pattern.substring(at, ++at);
    } else {
      throw error("a property without a name", start);
    }
    budget.work(200_000);
    CodePoints known = PROPERTIES.get(name);
    if (known == null) {
      known = property(name, start);
      PROPERTIES.put(name, known);
    }
    return known;
  }

  private CodePoints property(String name, int start) throws GrammarException {
    String key = name.substring(name.indexOf('=') + 1);
    String kind = name.contains("=") ? name.substring(0, name.indexOf('=')) : "";
    if (kind.equals("Script") || kind.equals("sc")) {
      try {
        Character.UnicodeScript script = Character.UnicodeScript.forName(key);
        return CodePoints.where(c -> Character.UnicodeScript.of(c) == script);
      } catch (IllegalArgumentException e) {
        throw error("there is no script '%s'".formatted(key), start);
      }
    }
    if (kind.isEmpty() || kind.equals("General_Category") || kind.equals("gc")) {
      int mask = categories(key);
      if (mask != 0) {
        return CodePoints.where(c -> (mask >> Character.getType(c) & 1) != 0);
      }
    }
    throw error(
        "the property '%s' is not supported; expected a general category such as L or Lu, or Script=NAME"
            .formatted(name),
        start);
  }

  private static final String[] CATEGORIES = {
    "Cn", "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Me", "Mc", "Nd", "Nl", "No", "", "Zs", "Zl", "Zp",
    "Cc", "Cf", "", "Co", "Cs", "Pd", "Ps", "Pe", "Pc", "Po", "Sm", "Sc", "Sk", "So", "Pi", "Pf"
  };

  /** The types of characters, as {@link Character#getType} numbers them, that a name stands for. */
  private static int categories(String name) {
    int mask = 0;
    for (int type = 0; type < CATEGORIES.length; type++) {
      String category = CATEGORIES[type];
      if (!category.isEmpty()
          && (category.equals(name)
              || (name.length() == 1 && category.charAt(0) == name.charAt(0)))) {
        mask |= 1 << type;
      }
    }
    return mask;
  }

  /** A class, its opening bracket read. */
  private CodePoints set() throws GrammarException {
    int start = at - 1;
    boolean negated = take("^");
    if (take("]")) {
      throw error("an empty class, which is read in different ways", start);
    }
    CodePoints set = CodePoints.ranges();
    while (true) {
      if (at >= pattern.length()) {
        throw error("a class that is not closed", start);
      }
      if (take("]")) {
        break;
      }
      if (pattern.startsWith("&&", at) || pattern.startsWith("[:", at)) {
        throw error("intersections and named classes inside a class are not supported");
      }
      CodePoints low = member();
      if (pattern.startsWith("-", at) && !pattern.startsWith("-]", at)) {
        at++;
        if (at >= pattern.length()) {
          throw error("a class that is not closed", start);
        }
        CodePoints high = member();
        if (low.count() != 1 || high.count() != 1 || high.low(0) < low.low(0)) {
          throw error("a range of characters that has no order");
        }
        set = set.or(CodePoints.ranges(low.low(0), high.low(0)));
      } else {
        set = set.or(low);
      }
      budget.work(set.size());
    }
    set = cased(set);
    return negated ? set.not() : set;
  }

  private CodePoints member() throws GrammarException {
    int c = pattern.codePointAt(at);
    at += Character.charCount(c);
    if (c != '\\') {
      return CodePoints.one(c);
    }
    if (at < pattern.length() && peek() == 'b') {
      at++;
      return CodePoints.one('\b');
    }
    return escaped();
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

  private GrammarException error(String what) {
    return error(what, at);
  }

  private GrammarException error(String what, int position) {
    return new GrammarException(
        String.format(
            Locale.ROOT, "character %d of the regular expression: %s", position + 1, what));
  }
}
