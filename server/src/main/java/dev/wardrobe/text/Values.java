package dev.wardrobe.text;

import java.math.BigDecimal;
import java.math.BigInteger;
import java.math.MathContext;
import java.math.RoundingMode;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * Python's semantics over the values of a template: {@link None}, Boolean, BigInteger (int), Double
 * (float), String and {@link Markup} (str), List, {@link Tuple}, Map (dict), {@link DictView},
 * {@link Range}, {@link Generator}, {@link Namespace}, {@link Undefined} and {@link Callable}.
 */
final class Values {

  private Values() {}

  /** The value of a template for a plain Java value of JSON's kinds. */
  static Object of(@Nullable Object value) {
    return of(value, 0);
  }

  private static Object of(@Nullable Object value, int depth) {
    if (depth > 500) {
      throw new TemplateFailure("the request's values are nested more than 500 deep");
    }
    return switch (value) {
      case null -> None.NONE;
      case String text -> text;
      case Boolean flag -> flag;
      case BigInteger integer -> integer;
      case Double number -> number;
      case Float number -> number.doubleValue();
      case Byte number -> BigInteger.valueOf(number);
      case Short number -> BigInteger.valueOf(number);
      case Integer number -> BigInteger.valueOf(number);
      case Long number -> BigInteger.valueOf(number);
      case BigDecimal number -> number.doubleValue();
      case List<?> list -> {
        List<Object> copy = new ArrayList<>(list.size());
        for (Object item : list) {
          copy.add(of(item, depth + 1));
        }
        yield copy;
      }
      case Map<?, ?> map -> {
        Map<Object, Object> copy = new LinkedHashMap<>();
        for (Map.Entry<?, ?> entry : map.entrySet()) {
          copy.put(of(entry.getKey(), depth + 1), of(entry.getValue(), depth + 1));
        }
        yield copy;
      }
      default ->
          throw new TemplateFailure(
              "a value of "
                  + value.getClass()
                  + " was given; chat templates take null, booleans, numbers, strings, lists"
                  + " and maps");
    };
  }

  /** Python's name of the value's type. */
  static String type(Object value) {
    return switch (value) {
      case None none -> "NoneType";
      case Boolean flag -> "bool";
      case BigInteger integer -> "int";
      case Double number -> "float";
      case String text -> "str";
      case Markup markup -> "Markup";
      case List<?> list -> "list";
      case Tuple tuple -> "tuple";
      case Map<?, ?> map -> "dict";
      case DictView view -> view.type();
      case Range range -> "range";
      case Generator generator -> "generator";
      case Namespace namespace -> "Namespace";
      case Undefined undefined -> "Undefined";
      case Macro macro -> "Macro";
      case Loop loop -> "LoopContext";
      case Globals.Cycler cycler -> "Cycler";
      default -> "function";
    };
  }

  static boolean truth(Object value) {
    return switch (value) {
      case None none -> false;
      case Boolean flag -> flag;
      case BigInteger integer -> integer.signum() != 0;
      case Double number -> number != 0;
      case String text -> !text.isEmpty();
      case Markup markup -> !markup.text().isEmpty();
      case List<?> list -> !list.isEmpty();
      case Tuple tuple -> !tuple.items().isEmpty();
      case Map<?, ?> map -> !map.isEmpty();
      case DictView view -> !view.items().isEmpty();
      case Range range -> !range.items().isEmpty();
      case Undefined undefined -> false;
      case Loop loop -> loop.length() > 0;
      default -> true;
    };
  }

  // Conversions that fail on other types

  static boolean isText(Object value) {
    return value instanceof String || value instanceof Markup;
  }

  static String text(Object value) {
    return switch (value) {
      case String text -> text;
      case Markup markup -> markup.text();
      case Undefined undefined -> throw undefined.failure();
      default -> throw new TemplateFailure("a string is needed, got '" + type(value) + "'");
    };
  }

  static boolean isInteger(Object value) {
    return value instanceof BigInteger || value instanceof Boolean;
  }

  static boolean isNumber(Object value) {
    return isInteger(value) || value instanceof Double;
  }

  static BigInteger integer(Object value) {
    return switch (value) {
      case BigInteger integer -> integer;
      case Boolean flag -> flag ? BigInteger.ONE : BigInteger.ZERO;
      case Undefined undefined -> throw undefined.failure();
      default ->
          throw new TemplateFailure(
              "'" + type(value) + "' object cannot be interpreted as an integer");
    };
  }

  /** An integer as an index or count; one beyond an int's range saturates. */
  static int index(Object value) {
    BigInteger integer = integer(value);
    if (integer.bitLength() > 31) {
      return integer.signum() < 0 ? Integer.MIN_VALUE : Integer.MAX_VALUE;
    }
    return integer.intValue();
  }

  static double number(Object value) {
    return switch (value) {
      case Double number -> number;
      case Undefined undefined -> throw undefined.failure();
      default -> {
        if (!isInteger(value)) {
          throw new TemplateFailure("must be real number, not " + type(value));
        }
        double number = integer(value).doubleValue();
        if (Double.isInfinite(number)) {
          throw new TemplateFailure("int too large to convert to float");
        }
        yield number;
      }
    };
  }

  // Sequences

  static int length(Object value) {
    return switch (value) {
      case String text -> PythonText.length(text);
      case Markup markup -> PythonText.length(markup.text());
      case List<?> list -> list.size();
      case Tuple tuple -> tuple.items().size();
      case Map<?, ?> map -> map.size();
      case DictView view -> view.items().size();
      case Range range -> range.items().size();
      case Undefined undefined -> 0;
      case Loop loop -> loop.length();
      default -> throw new TemplateFailure("object of type '" + type(value) + "' has no len()");
    };
  }

  static boolean isIterable(Object value) {
    return isText(value)
        || value instanceof List
        || value instanceof Tuple
        || value instanceof Map
        || value instanceof DictView
        || value instanceof Range
        || value instanceof Generator
        || value instanceof Undefined
        || value instanceof Loop;
  }

  @SuppressWarnings("unchecked")
  static Iterator<Object> iterate(Object value) {
    return switch (value) {
      case String text -> PythonText.characters(text).iterator();
      case Markup markup -> PythonText.characters(markup.text()).iterator();
      case List<?> list -> ((List<Object>) list).iterator();
      case Tuple tuple -> tuple.items().iterator();
      case Map<?, ?> map -> ((Map<Object, Object>) map).keySet().iterator();
      case DictView view -> view.items().iterator();
      case Range range -> range.items().iterator();
      case Generator generator -> generator.items();
      case Undefined undefined -> Collections.emptyIterator();
      default -> throw new TemplateFailure("'" + type(value) + "' object is not iterable");
    };
  }

  /** A new list of what {@code value} holds. */
  static List<Object> list(Object value) {
    List<Object> list = new ArrayList<>();
    Iterator<Object> items = iterate(value);
    while (items.hasNext()) {
      Budget.steps(1);
      list.add(items.next());
    }
    return list;
  }

  /** The items of a list or tuple, or null for anything else. */
  @SuppressWarnings("unchecked")
  static @Nullable List<Object> sequence(Object value) {
    return switch (value) {
      case List<?> list -> (List<Object>) list;
      case Tuple tuple -> tuple.items();
      default -> null;
    };
  }

  @SuppressWarnings("unchecked")
  static Map<Object, Object> dict(Map<?, ?> map) {
    return (Map<Object, Object>) map;
  }

  // Dict keys: equal numbers are one key, whatever their types

  static void checkKey(Object key) {
    if (key instanceof List || key instanceof Map || key instanceof DictView) {
      throw new TemplateFailure("unhashable type: '" + type(key) + "'");
    }
    if (key instanceof Tuple tuple) {
      tuple.items().forEach(Values::checkKey);
    }
  }

  static @Nullable Object lookUp(Map<?, ?> map, Object key) {
    checkKey(key);
    Object plain = key instanceof Markup markup ? markup.text() : key;
    Object value = map.get(plain);
    if (value == null && isNumber(plain)) {
      for (Map.Entry<?, ?> entry : map.entrySet()) {
        if (isNumber(entry.getKey()) && equal(entry.getKey(), plain)) {
          return entry.getValue();
        }
      }
    }
    return value;
  }

  static void put(Map<Object, Object> map, Object key, Object value) {
    checkKey(key);
    Object plain = key instanceof Markup markup ? markup.text() : key;
    if (isNumber(plain)) {
      for (Object present : map.keySet()) {
        if (isNumber(present) && equal(present, plain)) {
          map.put(present, value);
          return;
        }
      }
    }
    map.put(plain, value);
  }

  // Comparison

  static boolean equal(Object left, Object right) {
    return equal(left, right, 0);
  }

  private static boolean equal(Object left, Object right, int depth) {
    if (depth > 500) {
      throw new TemplateFailure("compared values are nested more than 500 deep");
    }
    Budget.steps(1);
    if (isNumber(left) && isNumber(right)) {
      return !isNaN(left) && !isNaN(right) && compareNumbers(left, right) == 0;
    }
    if (isText(left) && isText(right)) {
      return text(left).equals(text(right));
    }
    if ((left instanceof List && right instanceof List)
        || (left instanceof Tuple && right instanceof Tuple)) {
      List<Object> a = items(left);
      List<Object> b = items(right);
      if (a.size() != b.size()) {
        return false;
      }
      for (int i = 0; i < a.size(); i++) {
        if (!equal(a.get(i), b.get(i), depth + 1)) {
          return false;
        }
      }
      return true;
    }
    if (left instanceof Map<?, ?> a && right instanceof Map<?, ?> b) {
      if (a.size() != b.size()) {
        return false;
      }
      for (Map.Entry<?, ?> entry : a.entrySet()) {
        Object other = lookUp(b, entry.getKey());
        if (other == null || !equal(entry.getValue(), other, depth + 1)) {
          return false;
        }
      }
      return true;
    }
    if (left instanceof Range a && right instanceof Range b) {
      return a.items().equals(b.items());
    }
    return left.equals(right);
  }

  private static List<Object> items(Object sequence) {
    List<Object> items = sequence(sequence);
    if (items == null) {
      throw new IllegalArgumentException("not a list or tuple");
    }
    return items;
  }

  private static boolean isNaN(Object number) {
    return number instanceof Double d && Double.isNaN(d);
  }

  private static int compareNumbers(Object left, Object right) {
    if (left instanceof Double || right instanceof Double) {
      if (isInfinite(left) || isInfinite(right)) {
        return Double.compare(approximate(left), approximate(right));
      }
      return decimal(left).compareTo(decimal(right));
    }
    return integer(left).compareTo(integer(right));
  }

  private static boolean isInfinite(Object number) {
    return number instanceof Double d && Double.isInfinite(d);
  }

  private static double approximate(Object number) {
    return number instanceof Double d ? d : integer(number).signum();
  }

  private static BigDecimal decimal(Object number) {
    return number instanceof Double d ? new BigDecimal(d) : new BigDecimal(integer(number));
  }

  /** Whether {@code left operator right} holds, for the four orderings. */
  static boolean ordered(Object left, String operator, Object right) {
    if (isNaN(left) || isNaN(right)) {
      return false;
    }
    int order = compare(left, right, operator, 0);
    return switch (operator) {
      case "<" -> order < 0;
      case "<=" -> order <= 0;
      case ">" -> order > 0;
      default -> order >= 0;
    };
  }

  static final Comparator<Object> ORDER = (left, right) -> compare(left, right, "<", 0);

  private static int compare(Object left, Object right, String operator, int depth) {
    if (depth > 500) {
      throw new TemplateFailure("compared values are nested more than 500 deep");
    }
    if (left instanceof Undefined undefined) {
      throw undefined.failure();
    }
    if (right instanceof Undefined undefined) {
      throw undefined.failure();
    }
    if (isNumber(left) && isNumber(right)) {
      return compareNumbers(left, right);
    }
    if (isText(left) && isText(right)) {
      return compareText(text(left), text(right));
    }
    if ((left instanceof List && right instanceof List)
        || (left instanceof Tuple && right instanceof Tuple)) {
      List<Object> a = items(left);
      List<Object> b = items(right);
      for (int i = 0; i < Math.min(a.size(), b.size()); i++) {
        if (!equal(a.get(i), b.get(i))) {
          return compare(a.get(i), b.get(i), operator, depth + 1);
        }
      }
      return Integer.compare(a.size(), b.size());
    }
    throw new TemplateFailure(
        "'"
            + operator
            + "' not supported between instances of '"
            + type(left)
            + "' and '"
            + type(right)
            + "'");
  }

  /** By code points, which UTF-16's order is not. */
  private static int compareText(String left, String right) {
    int i = 0;
    while (i < left.length() && i < right.length()) {
      int a = left.codePointAt(i);
      int b = right.codePointAt(i);
      if (a != b) {
        return Integer.compare(a, b);
      }
      i += Character.charCount(a);
    }
    return Integer.compare(left.length(), right.length());
  }

  static boolean contains(Object container, Object item) {
    if (isText(container)) {
      if (!isText(item)) {
        throw new TemplateFailure(
            "'in <string>' requires string as left operand, not " + type(item));
      }
      Budget.steps(text(container).length() / 64);
      return text(container).contains(text(item));
    }
    if (container instanceof Map<?, ?> map) {
      return lookUp(map, item) != null;
    }
    if (!isIterable(container)) {
      throw new TemplateFailure("argument of type '" + type(container) + "' is not iterable");
    }
    Iterator<Object> items = iterate(container);
    while (items.hasNext()) {
      Budget.steps(1);
      if (equal(items.next(), item)) {
        return true;
      }
    }
    return false;
  }

  // Arithmetic

  static Object binary(String operator, Object left, Object right) {
    if (left instanceof Undefined undefined) {
      throw undefined.failure();
    }
    if (operator.equals("%") && isText(left)) {
      String formatted = StringFormat.percent(text(left), right);
      return left instanceof Markup ? new Markup(formatted) : formatted;
    }
    if (right instanceof Undefined undefined) {
      throw undefined.failure();
    }
    if (isNumber(left) && isNumber(right)) {
      return left instanceof Double || right instanceof Double
          ? real(operator, number(left), number(right))
          : integral(operator, integer(left), integer(right));
    }
    if (operator.equals("+")) {
      return add(left, right);
    }
    if (operator.equals("*")) {
      if (isInteger(right) && (isText(left) || sequence(left) != null)) {
        return repeat(left, integer(right));
      }
      if (isInteger(left) && (isText(right) || sequence(right) != null)) {
        return repeat(right, integer(left));
      }
    }
    throw new TemplateFailure(
        "unsupported operand type(s) for "
            + (operator.equals("**") ? "** or pow()" : operator)
            + ": '"
            + type(left)
            + "' and '"
            + type(right)
            + "'");
  }

  private static Object add(Object left, Object right) {
    if (isText(left) && isText(right)) {
      if (left instanceof Markup || right instanceof Markup) {
        return new Markup(
            Budget.made(Markup.escape(left).text().concat(Markup.escape(right).text())));
      }
      String a = text(left);
      String b = text(right);
      Budget.text((long) a.length() + b.length());
      return a.concat(b);
    }
    boolean lists = left instanceof List && right instanceof List;
    boolean tuples = left instanceof Tuple && right instanceof Tuple;
    if (lists || tuples) {
      List<Object> sum = new ArrayList<>(items(left));
      sum.addAll(items(right));
      Budget.steps(sum.size());
      return lists ? sum : new Tuple(sum);
    }
    if (isText(left) || sequence(left) != null) {
      String type = left instanceof Markup ? "str" : type(left);
      throw new TemplateFailure(
          "can only concatenate " + type + " (not \"" + type(right) + "\") to " + type);
    }
    throw new TemplateFailure(
        "unsupported operand type(s) for +: '" + type(left) + "' and '" + type(right) + "'");
  }

  private static Object repeat(Object value, BigInteger times) {
    long count =
        times.signum() <= 0
            ? 0
            : Math.min(
                times.bitLength() > 31 ? Integer.MAX_VALUE : times.longValue(), Integer.MAX_VALUE);
    if (isText(value)) {
      String text = text(value);
      Budget.text(text.length() * count);
      String repeated = text.isEmpty() ? "" : text.repeat((int) count);
      return value instanceof Markup ? new Markup(repeated) : repeated;
    }
    List<Object> items = items(value);
    Budget.steps(items.size() * count);
    List<Object> repeated = new ArrayList<>();
    for (long i = 0; i < count && !items.isEmpty(); i++) {
      repeated.addAll(items);
    }
    return value instanceof Tuple ? new Tuple(repeated) : repeated;
  }

  private static Object integral(String operator, BigInteger a, BigInteger b) {
    return switch (operator) {
      case "+" -> bounded(a.add(b));
      case "-" -> bounded(a.subtract(b));
      case "*" -> bounded(a.multiply(b));
      case "/" -> {
        checkDivisor(b.signum() == 0, "division by zero");
        double quotient =
            a.bitLength() <= 53 && b.bitLength() <= 53
                ? a.doubleValue() / b.doubleValue()
                : new BigDecimal(a)
                    .divide(new BigDecimal(b), new MathContext(60, RoundingMode.HALF_EVEN))
                    .doubleValue();
        if (Double.isInfinite(quotient)) {
          throw new TemplateFailure("integer division result too large for a float");
        }
        yield quotient;
      }
      case "//" -> {
        checkDivisor(b.signum() == 0, "integer division or modulo by zero");
        yield floorDivide(a, b);
      }
      case "%" -> {
        checkDivisor(b.signum() == 0, "integer modulo by zero");
        yield a.subtract(floorDivide(a, b).multiply(b));
      }
      default -> power(a, b);
    };
  }

  private static BigInteger floorDivide(BigInteger a, BigInteger b) {
    BigInteger[] parts = a.divideAndRemainder(b);
    boolean down = parts[1].signum() != 0 && parts[1].signum() != b.signum();
    return down ? parts[0].subtract(BigInteger.ONE) : parts[0];
  }

  private static Object power(BigInteger base, BigInteger exponent) {
    if (exponent.signum() < 0) {
      checkDivisor(base.signum() == 0, "0.0 cannot be raised to a negative power");
      return real("**", base.doubleValue(), exponent.doubleValue());
    }
    if (base.bitLength() <= 1 && base.signum() >= 0) {
      return exponent.signum() == 0 ? BigInteger.ONE : base;
    }
    if (exponent.bitLength() > 31
        || (long) base.bitLength() * exponent.intValue() > 2L * Budget.MAX_BITS) {
      throw new TemplateFailure("an integer of more than " + Budget.MAX_BITS + " bits");
    }
    return bounded(base.pow(exponent.intValue()));
  }

  static BigInteger bounded(BigInteger value) {
    if (value.bitLength() > Budget.MAX_BITS) {
      throw new TemplateFailure("an integer of more than " + Budget.MAX_BITS + " bits");
    }
    return value;
  }

  private static Object real(String operator, double a, double b) {
    return switch (operator) {
      case "+" -> a + b;
      case "-" -> a - b;
      case "*" -> a * b;
      case "/" -> {
        checkDivisor(b == 0, "float division by zero");
        yield a / b;
      }
      case "//" -> {
        checkDivisor(b == 0, "float floor division by zero");
        double remainder = modulo(a, b);
        double quotient = (a - remainder) / b;
        double floor = Math.floor(quotient);
        yield quotient == 0
            ? Math.copySign(0.0, a / b)
            : quotient - floor > 0.5 ? floor + 1 : floor;
      }
      case "%" -> {
        checkDivisor(b == 0, "float modulo");
        yield modulo(a, b);
      }
      default -> {
        checkDivisor(a == 0 && b < 0, "0.0 cannot be raised to a negative power");
        if (a < 0 && b != Math.rint(b)) {
          throw new TemplateFailure("a negative number cannot be raised to a fraction");
        }
        double power = StrictMath.pow(a, b);
        if (Double.isInfinite(power) && !Double.isInfinite(a) && !Double.isInfinite(b)) {
          throw new TemplateFailure("(34, 'Numerical result out of range')");
        }
        yield power;
      }
    };
  }

  private static double modulo(double a, double b) {
    double remainder = a % b;
    if (remainder == 0) {
      return Math.copySign(0.0, b);
    }
    return (remainder < 0) != (b < 0) ? remainder + b : remainder;
  }

  private static void checkDivisor(boolean zero, String message) {
    if (zero) {
      throw new TemplateFailure(message);
    }
  }
}
