package dev.wardrobe.text;

import java.math.BigInteger;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** Jinja's tests: what can follow {@code is}. */
final class Predicates {

  private static final Set<String> NAMES =
      Set.of(
          "odd",
          "even",
          "divisibleby",
          "defined",
          "undefined",
          "filter",
          "test",
          "none",
          "boolean",
          "false",
          "true",
          "integer",
          "float",
          "lower",
          "upper",
          "string",
          "mapping",
          "number",
          "sequence",
          "iterable",
          "callable",
          "sameas",
          "escaped",
          "in",
          "==",
          "eq",
          "equalto",
          "!=",
          "ne",
          ">",
          "gt",
          "greaterthan",
          "ge",
          ">=",
          "<",
          "lt",
          "lessthan",
          "<=",
          "le");

  private Predicates() {}

  static boolean test(String name, Object value, Arguments arguments) {
    return switch (name) {
      case "defined" -> plain(name, arguments, !(value instanceof Undefined));
      case "undefined" -> plain(name, arguments, value instanceof Undefined);
      case "none" -> plain(name, arguments, value == None.NONE);
      case "true" -> plain(name, arguments, Boolean.TRUE.equals(value));
      case "false" -> plain(name, arguments, Boolean.FALSE.equals(value));
      case "boolean" -> plain(name, arguments, value instanceof Boolean);
      case "integer" -> plain(name, arguments, value instanceof BigInteger);
      case "float" -> plain(name, arguments, value instanceof Double);
      case "number" -> plain(name, arguments, Values.isNumber(value));
      case "string" -> plain(name, arguments, Values.isText(value));
      case "mapping" -> plain(name, arguments, value instanceof Map);
      case "sequence" -> plain(name, arguments, isSequence(value));
      case "iterable" -> plain(name, arguments, Values.isIterable(value));
      case "callable" ->
          plain(
              name,
              arguments,
              value instanceof Callable || value instanceof Undefined || value instanceof Loop);
      case "escaped" -> plain(name, arguments, value instanceof Markup);
      case "lower" -> plain(name, arguments, isCase(value, "islower"));
      case "upper" -> plain(name, arguments, isCase(value, "isupper"));
      case "filter" -> value instanceof String filter && Filters.exists(filter);
      case "test" -> value instanceof String test && NAMES.contains(test);
      case "odd" -> remainder(value, BigInteger.TWO, BigInteger.ONE);
      case "even" -> remainder(value, BigInteger.TWO, BigInteger.ZERO);
      case "divisibleby" -> remainder(value, other(name, arguments), BigInteger.ZERO);
      case "sameas" -> same(value, other(name, arguments));
      case "in" -> Values.contains(other(name, arguments), value);
      case "==", "eq", "equalto" -> Values.equal(value, other(name, arguments));
      case "!=", "ne" -> !Values.equal(value, other(name, arguments));
      case ">", "gt", "greaterthan" -> Values.ordered(value, ">", other(name, arguments));
      case ">=", "ge" -> Values.ordered(value, ">=", other(name, arguments));
      case "<", "lt", "lessthan" -> Values.ordered(value, "<", other(name, arguments));
      case "<=", "le" -> Values.ordered(value, "<=", other(name, arguments));
      default -> throw new TemplateFailure("No test named '" + name + "'.");
    };
  }

  private static boolean plain(String name, Arguments arguments, boolean result) {
    arguments.bind(name);
    return result;
  }

  private static Object other(String name, Arguments arguments) {
    List<Object> values = arguments.positional();
    if (values.size() == 1 && arguments.named().isEmpty()) {
      return values.getFirst();
    }
    return arguments
        .bind(name, name.equals("divisibleby") ? "num" : "other")
        .required(name.equals("divisibleby") ? "num" : "other");
  }

  private static boolean isSequence(Object value) {
    return Values.isText(value)
        || value instanceof List
        || value instanceof Tuple
        || value instanceof Map
        || value instanceof Range
        || value instanceof Undefined;
  }

  private static boolean isCase(Object value, String method) {
    Callable callable = StringMethods.find(Representation.str(value), method);
    return callable != null && Values.truth(callable.call(Arguments.NONE));
  }

  private static boolean remainder(Object value, Object divisor, BigInteger wanted) {
    return Values.equal(Values.binary("%", value, divisor), wanted);
  }

  @SuppressWarnings("ReferenceEquality") // Python's "is" asks for the same object.
  private static boolean same(Object left, Object right) {
    boolean scalar = Values.isNumber(left) || left instanceof String;
    return scalar ? left.equals(right) : left == right;
  }
}
