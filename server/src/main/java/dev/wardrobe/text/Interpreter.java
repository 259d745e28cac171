package dev.wardrobe.text;

import dev.wardrobe.text.Expression.CallArguments;
import dev.wardrobe.text.Statement.Target;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/** Runs a template's statements over its variables and gathers the text. */
final class Interpreter {

  /** How a list of statements ended. */
  private enum Flow {
    NEXT,
    BREAK,
    CONTINUE
  }

  private final StringBuilder page = new StringBuilder();
  private final List<RenderedChat.Span> generated = new ArrayList<>();

  /** Where text goes: the page, or the text of a macro or block that is being captured. */
  private StringBuilder out = page;

  private boolean capturedGeneration;
  private int line = 1;

  void run(List<Statement> template, Scope scope) {
    execute(template, scope);
  }

  String text() {
    return page.toString();
  }

  /** The line that was being evaluated last. */
  int line() {
    return line;
  }

  /**
   * The parts inside {@code generation} tags, or empty where such a tag stood inside a macro or a
   * captured block, so that its place on the page is unknown.
   */
  Optional<List<RenderedChat.Span>> generated() {
    return capturedGeneration ? Optional.empty() : Optional.of(generated);
  }

  // Statements

  private Flow execute(List<Statement> statements, Scope scope) {
    for (Statement statement : statements) {
      Flow flow = execute(statement, scope);
      if (flow != Flow.NEXT) {
        return flow;
      }
    }
    return Flow.NEXT;
  }

  private Flow execute(Statement statement, Scope scope) {
    Budget.steps(1);
    switch (statement) {
      case Statement.Text text -> write(text.text());
      case Statement.Print print -> {
        line = print.line();
        write(Representation.str(evaluate(print.value(), scope)));
      }
      case Statement.Assign assign -> {
        line = assign.line();
        assign(assign.target(), evaluate(assign.value(), scope), scope);
      }
      case Statement.AssignBlock block -> {
        line = block.line();
        Object text = capture(block.body(), new Scope(scope));
        Object value = block.filter() == null ? text : filter(block.filter(), text, scope);
        assign(block.target(), value, scope);
      }
      case Statement.If condition -> {
        return condition(condition, scope);
      }
      case Statement.For loop -> {
        line = loop.line();
        repeat(loop, evaluate(loop.iterable(), scope), 1, scope);
      }
      case Statement.With with -> {
        line = with.line();
        Scope inner = new Scope(scope);
        for (int i = 0; i < with.targets().size(); i++) {
          assign(with.targets().get(i), evaluate(with.values().get(i), scope), inner);
        }
        return execute(with.body(), inner);
      }
      case Statement.MacroDefinition macro ->
          scope.set(macro.signature().name(), function(macro.signature(), macro.body(), scope));
      case Statement.CallBlock block -> {
        line = block.line();
        Expression.Call call = block.call();
        Object target = evaluate(call.target(), scope);
        Arguments arguments = arguments(call.arguments(), scope);
        Map<String, Object> named = new LinkedHashMap<>(arguments.named());
        named.put("caller", function(block.caller(), block.body(), scope));
        line = block.line();
        write(Representation.str(call(target, new Arguments(arguments.positional(), named))));
      }
      case Statement.FilterBlock block -> {
        line = block.line();
        String text = capture(block.body(), new Scope(scope));
        write(Representation.str(filter(block.filter(), text, scope)));
      }
      case Statement.Generation generation -> {
        line = generation.line();
        String text = capture(generation.body(), new Scope(scope));
        if (out == page) {
          generated.add(new RenderedChat.Span(page.length(), page.length() + text.length()));
        } else {
          capturedGeneration = true;
        }
        write(text);
      }
      case Statement.Break ignored -> {
        return Flow.BREAK;
      }
      case Statement.Continue ignored -> {
        return Flow.CONTINUE;
      }
    }
    return Flow.NEXT;
  }

  private void write(String text) {
    Budget.text(text.length());
    out.append(text);
    Budget.growing(out);
  }

  private Flow condition(Statement.If condition, Scope scope) {
    line = condition.line();
    for (int i = 0; i < condition.tests().size(); i++) {
      if (Values.truth(evaluate(condition.tests().get(i), scope))) {
        return execute(condition.bodies().get(i), scope);
      }
    }
    return execute(condition.otherwise(), scope);
  }

  private void repeat(Statement.For statement, Object iterable, int depth, Scope scope) {
    Iterator<Object> items = Values.iterate(iterable);
    Expression test = statement.test();
    if (test != null) {
      items =
          new Filters.Selection(
              items,
              item -> {
                Scope inner = new Scope(scope);
                assign(statement.target(), item, inner);
                return Values.truth(evaluate(test, inner));
              });
    }
    Callable recursion =
        arguments -> {
          Object inner = arguments.bind("loop", "iterable").required("iterable");
          StringBuilder outer = out;
          out = new StringBuilder();
          Budget.enter();
          repeat(statement, inner, depth + 1, scope);
          Budget.leave();
          String text = out.toString();
          out = outer;
          return text;
        };
    Loop loop = new Loop(items, depth, statement.recursive() ? recursion : null);
    boolean empty = true;
    while (loop.hasNext()) {
      empty = false;
      Scope inner = new Scope(scope);
      inner.set("loop", loop);
      assign(statement.target(), loop.next(), inner);
      if (execute(statement.body(), inner) == Flow.BREAK) {
        break;
      }
    }
    if (empty) {
      execute(statement.otherwise(), new Scope(scope));
    }
  }

  private Macro function(Statement.Signature signature, List<Statement> body, Scope scope) {
    return new Macro(signature, scope, this::evaluate, inner -> capture(body, inner));
  }

  private String capture(List<Statement> body, Scope scope) {
    StringBuilder outer = out;
    out = new StringBuilder();
    execute(body, scope);
    String text = out.toString();
    out = outer;
    return text;
  }

  private void assign(Target target, Object value, Scope scope) {
    switch (target) {
      case Target.Variable variable -> scope.set(variable.name(), value);
      case Target.NamespaceAttribute attribute -> {
        if (!(scope.get(attribute.namespace()) instanceof Namespace namespace)) {
          throw new TemplateFailure("cannot assign attribute on non-namespace object");
        }
        namespace.set(attribute.attribute(), value);
      }
      case Target.Several several -> {
        List<Target> targets = several.targets();
        if (value instanceof Undefined undefined) {
          throw undefined.failure();
        }
        if (!Values.isIterable(value)) {
          throw new TemplateFailure("cannot unpack non-iterable " + Values.type(value) + " object");
        }
        List<Object> values = Values.list(value);
        if (values.size() != targets.size()) {
          throw new TemplateFailure(
              (values.size() < targets.size() ? "not enough" : "too many")
                  + " values to unpack (expected "
                  + targets.size()
                  + ", got "
                  + values.size()
                  + ")");
        }
        for (int i = 0; i < values.size(); i++) {
          assign(targets.get(i), values.get(i), scope);
        }
      }
    }
  }

  // Expressions

  private Object evaluate(Expression expression, Scope scope) {
    Budget.steps(1);
    Budget.enter();
    Object value =
        switch (expression) {
          case Expression.Constant constant -> constant.value();
          case Expression.Name name -> scope.get(name.name());
          case Expression.ListLiteral list -> evaluate(list.items(), scope);
          case Expression.TupleLiteral tuple -> new Tuple(evaluate(tuple.items(), scope));
          case Expression.DictLiteral dict -> dict(dict, scope);
          case Expression.Negated not -> !Values.truth(evaluate(not.operand(), scope));
          case Expression.Minus minus -> negative(evaluate(minus.operand(), scope));
          case Expression.Plus plus -> positive(evaluate(plus.operand(), scope));
          case Expression.And and -> {
            Object left = evaluate(and.left(), scope);
            yield Values.truth(left) ? evaluate(and.right(), scope) : left;
          }
          case Expression.Or or -> {
            Object left = evaluate(or.left(), scope);
            yield Values.truth(left) ? left : evaluate(or.right(), scope);
          }
          case Expression.Binary binary -> {
            Object left = evaluate(binary.left(), scope);
            Object right = evaluate(binary.right(), scope);
            line = binary.line();
            yield Values.binary(binary.operator(), left, right);
          }
          case Expression.Comparison comparison -> compare(comparison, scope);
          case Expression.Concatenation concatenation -> {
            StringBuilder text = new StringBuilder();
            for (Expression part : concatenation.parts()) {
              text.append(Representation.str(evaluate(part, scope)));
              Budget.growing(text);
            }
            yield Budget.made(text.toString());
          }
          case Expression.Conditional conditional -> conditional(conditional, scope);
          case Expression.Attribute attribute -> {
            Object target = evaluate(attribute.target(), scope);
            line = attribute.line();
            yield Members.attribute(target, attribute.name());
          }
          case Expression.Item item -> item(item, scope);
          // Between commas; no value has such an item.
          case Expression.Slice slice -> new Undefined("a slice among several subscripts");
          case Expression.Call call -> {
            Object target = evaluate(call.target(), scope);
            Arguments arguments = arguments(call.arguments(), scope);
            line = call.line();
            yield call(target, arguments);
          }
          case Expression.Filter filter -> filter(filter, "", scope);
          case Expression.Test test -> {
            Object input = evaluate(test.input(), scope);
            Arguments arguments = arguments(test.arguments(), scope);
            line = test.line();
            yield Predicates.test(test.name(), input, arguments);
          }
        };
    Budget.leave();
    return value;
  }

  private List<Object> evaluate(List<Expression> expressions, Scope scope) {
    List<Object> values = new ArrayList<>(expressions.size());
    for (Expression expression : expressions) {
      values.add(evaluate(expression, scope));
    }
    return values;
  }

  private Map<Object, Object> dict(Expression.DictLiteral literal, Scope scope) {
    Map<Object, Object> dict = new LinkedHashMap<>();
    for (int i = 0; i < literal.keys().size(); i++) {
      Object key = evaluate(literal.keys().get(i), scope);
      Values.put(dict, key, evaluate(literal.values().get(i), scope));
    }
    return dict;
  }

  private static Object negative(Object value) {
    return switch (value) {
      case Double number -> -number;
      case Undefined undefined -> throw undefined.failure();
      default -> {
        checkOperand(value, "-");
        yield Values.integer(value).negate();
      }
    };
  }

  private static Object positive(Object value) {
    return switch (value) {
      case Double number -> number;
      case Undefined undefined -> throw undefined.failure();
      default -> {
        checkOperand(value, "+");
        yield Values.integer(value);
      }
    };
  }

  private static void checkOperand(Object value, String operator) {
    if (!Values.isInteger(value)) {
      throw new TemplateFailure(
          "bad operand type for unary " + operator + ": '" + Values.type(value) + "'");
    }
  }

  private boolean compare(Expression.Comparison comparison, Scope scope) {
    Object left = evaluate(comparison.operands().getFirst(), scope);
    for (int i = 0; i < comparison.operators().size(); i++) {
      Object right = evaluate(comparison.operands().get(i + 1), scope);
      line = comparison.line();
      String operator = comparison.operators().get(i);
      boolean holds =
          switch (operator) {
            case "==" -> Values.equal(left, right);
            case "!=" -> !Values.equal(left, right);
            case "in" -> Values.contains(right, left);
            case "not in" -> !Values.contains(right, left);
            default -> Values.ordered(left, operator, right);
          };
      if (!holds) {
        return false;
      }
      left = right;
    }
    return true;
  }

  private Object conditional(Expression.Conditional conditional, Scope scope) {
    if (Values.truth(evaluate(conditional.test(), scope))) {
      return evaluate(conditional.then(), scope);
    }
    Expression otherwise = conditional.otherwise();
    return otherwise != null
        ? evaluate(otherwise, scope)
        : new Undefined(
            "the inline if-expression on line "
                + line
                + " evaluated to false and no else section was defined.");
  }

  private Object item(Expression.Item item, Scope scope) {
    Object target = evaluate(item.target(), scope);
    if (item.key() instanceof Expression.Slice slice) {
      Object start = slice.start() == null ? null : evaluate(slice.start(), scope);
      Object stop = slice.stop() == null ? null : evaluate(slice.stop(), scope);
      Object step = slice.step() == null ? null : evaluate(slice.step(), scope);
      line = item.line();
      return Members.slice(target, start, stop, step);
    }
    Object key = evaluate(item.key(), scope);
    line = item.line();
    return Members.item(target, key);
  }

  private Object filter(Expression.Filter filter, Object block, Scope scope) {
    Object input;
    if (filter.input() == null) {
      input = block;
    } else if (filter.input() instanceof Expression.Filter inner) {
      // A chain that begins with a block's text has no input at its far end.
      input = filter(inner, block, scope);
    } else {
      input = evaluate(filter.input(), scope);
    }
    Arguments arguments = arguments(filter.arguments(), scope);
    line = filter.line();
    return Filters.apply(filter.name(), input, arguments);
  }

  private Arguments arguments(CallArguments written, Scope scope) {
    if (written.equals(CallArguments.NONE)) {
      return Arguments.NONE;
    }
    List<Object> positional = evaluate(written.positional(), scope);
    Map<String, Object> named = new LinkedHashMap<>();
    for (int i = 0; i < written.names().size(); i++) {
      named.put(written.names().get(i), evaluate(written.named().get(i), scope));
    }
    if (written.sequence() != null) {
      positional.addAll(Values.list(evaluate(written.sequence(), scope)));
    }
    if (written.mapping() != null) {
      Object mapping = evaluate(written.mapping(), scope);
      for (Map.Entry<String, Object> entry :
          Globals.names(mapping, "argument after **").entrySet()) {
        if (named.put(entry.getKey(), entry.getValue()) != null) {
          throw new TemplateFailure(
              "got multiple values for keyword argument '" + entry.getKey() + "'");
        }
      }
    }
    return new Arguments(positional, named);
  }

  private static Object call(Object target, Arguments arguments) {
    return switch (target) {
      case Callable callable -> callable.call(arguments);
      case Loop loop -> loop.recurse(arguments);
      case Undefined undefined -> throw undefined.failure();
      default -> throw new TemplateFailure("'" + Values.type(target) + "' object is not callable");
    };
  }
}
