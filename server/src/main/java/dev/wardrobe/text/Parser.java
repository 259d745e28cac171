package dev.wardrobe.text;

import dev.wardrobe.text.Expression.CallArguments;
import dev.wardrobe.text.Statement.Signature;
import dev.wardrobe.text.Statement.Target;
import dev.wardrobe.text.Token.Kind;
import java.math.BigInteger;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/** Builds the tree of a template from its tokens, with Jinja's grammar and precedences. */
final class Parser {

  /** Deeper nesting than any real template has; it keeps a hostile one off the stack's end. */
  private static final int MAX_DEPTH = 150;

  private static final Set<String> COMPARISONS = Set.of("==", "!=", "<", "<=", ">", ">=");
  private static final Set<String> CONSTANTS =
      Set.of("true", "false", "none", "True", "False", "None");
  private static final Set<String> UNSUPPORTED_TAGS =
      Set.of("extends", "block", "include", "import", "from", "autoescape");

  private final List<Token> tokens;
  private int next;
  private int depth;

  /** The tag names that enclosing blocks wait for, innermost first. */
  private final Deque<List<String>> awaited = new ArrayDeque<>();

  /** The special names met in each macro that is being read, innermost first. */
  private final Deque<Set<String>> specialNames = new ArrayDeque<>();

  /** How many loops {@code break} could leave; a macro's body starts anew at 0. */
  private int loops;

  private Parser(List<Token> tokens) {
    this.tokens = tokens;
  }

  static List<Statement> parse(String template) {
    Parser parser = new Parser(Lexer.tokenize(template));
    return parser.statements(List.of());
  }

  // Statements

  /** Reads up to a tag of {@code ends}, whose name becomes the current token. */
  private List<Statement> statements(List<String> ends) {
    enter();
    List<Statement> body = new ArrayList<>();
    if (!ends.isEmpty()) {
      awaited.push(ends);
    }
    while (true) {
      Token token = take();
      switch (token.kind()) {
        case DATA -> body.add(new Statement.Text(token.value()));
        case VARIABLE_BEGIN -> {
          body.add(new Statement.Print(tuple(true, null), token.line()));
          expect(Kind.VARIABLE_END);
        }
        case BLOCK_BEGIN -> {
          if (current().kind() == Kind.NAME && ends.contains(current().value())) {
            awaited.pop();
            depth--;
            return body;
          }
          Token tag = current();
          Statement statement = statement();
          if (statement != null) {
            body.add(statement);
          } else {
            printed(body, tag);
          }
          expect(Kind.BLOCK_END);
        }
        case END -> {
          if (ends.isEmpty()) {
            depth--;
            return body;
          }
          throw failure("the template ends before " + tags(ends), token);
        }
        default -> throw failure("unexpected " + token.described(), token);
      }
    }
  }

  private static String tags(List<String> names) {
    List<String> quoted = new ArrayList<>();
    for (String name : names) {
      quoted.add("'{% " + name + " %}'");
    }
    return String.join(" or ", quoted);
  }

  /** Reads a tag's body: what stands between {@code %}} and one of {@code ends}. */
  private List<Statement> body(String... ends) {
    skipOperator(":");
    expect(Kind.BLOCK_END);
    return statements(List.of(ends));
  }

  private List<Statement> bodyTo(String end) {
    List<Statement> body = body(end);
    take();
    return body;
  }

  /** Reads one tag; null for {@code print}, which makes several statements. */
  private @Nullable Statement statement() {
    Token tag = current();
    if (tag.kind() != Kind.NAME) {
      throw failure("a tag's name expected, got " + tag.described(), tag);
    }
    take();
    return switch (tag.value()) {
      case "for" -> loop(tag);
      case "if" -> condition(tag);
      case "set" -> assignment(tag);
      case "with" -> with(tag);
      case "macro" -> macro(tag);
      case "call" -> callBlock(tag);
      case "filter" -> {
        Expression.Filter filter = filter(null);
        while (current().operator("|")) {
          take();
          filter = filter(filter);
        }
        yield new Statement.FilterBlock(filter, bodyTo("endfilter"), tag.line());
      }
      case "generation" -> new Statement.Generation(function("endgeneration"), tag.line());
      case "break", "continue" -> {
        if (loops == 0) {
          throw failure("'" + tag.value() + "' outside a loop", tag);
        }
        yield tag.value().equals("break") ? new Statement.Break() : new Statement.Continue();
      }
      case "print" -> null;
      default -> throw unknownTag(tag);
    };
  }

  private TemplateFailure unknownTag(Token tag) {
    if (UNSUPPORTED_TAGS.contains(tag.value())) {
      return failure("tag '" + tag.value() + "' is not supported in chat templates", tag);
    }
    List<String> ends = awaited.peek();
    return failure(
        "unknown tag '" + tag.value() + "'" + (ends == null ? "" : ", expected " + tags(ends)),
        tag);
  }

  private void printed(List<Statement> body, Token tag) {
    boolean first = true;
    while (current().kind() != Kind.BLOCK_END) {
      if (!first) {
        expectOperator(",");
      }
      body.add(new Statement.Print(expression(), tag.line()));
      first = false;
    }
  }

  private Statement loop(Token tag) {
    Target target = target("in", false);
    expectName("in");
    Expression iterable = tuple(false, "recursive");
    Expression test = skipName("if") ? expression() : null;
    boolean recursive = skipName("recursive");
    loops++;
    List<Statement> body = body("endfor", "else");
    loops--;
    List<Statement> otherwise = List.of();
    if (take().name("else")) {
      otherwise = bodyTo("endfor");
    }
    return new Statement.For(target, iterable, test, recursive, body, otherwise, tag.line());
  }

  private Statement condition(Token tag) {
    List<Expression> tests = new ArrayList<>();
    List<List<Statement>> bodies = new ArrayList<>();
    List<Statement> otherwise = List.of();
    while (true) {
      tests.add(tuple(false, null));
      bodies.add(body("elif", "else", "endif"));
      Token end = take();
      if (end.name("elif")) {
        continue;
      }
      if (end.name("else")) {
        otherwise = bodyTo("endif");
      }
      return new Statement.If(tests, bodies, otherwise, tag.line());
    }
  }

  private Statement assignment(Token tag) {
    Target target = target(null, true);
    if (skipOperator("=")) {
      return new Statement.Assign(target, tuple(true, null), tag.line());
    }
    Expression.Filter filter = null;
    while (current().operator("|")) {
      take();
      filter = filter(filter);
    }
    return new Statement.AssignBlock(target, filter, bodyTo("endset"), tag.line());
  }

  private Statement with(Token tag) {
    List<Target> targets = new ArrayList<>();
    List<Expression> values = new ArrayList<>();
    while (current().kind() != Kind.BLOCK_END) {
      if (!targets.isEmpty()) {
        expectOperator(",");
      }
      targets.add(target(null, false));
      expectOperator("=");
      values.add(expression());
    }
    return new Statement.With(targets, values, bodyTo("endwith"), tag.line());
  }

  private Statement macro(Token tag) {
    String name = assignableName();
    specialNames.push(new HashSet<>());
    List<String> parameters = new ArrayList<>();
    List<Expression> defaults = new ArrayList<>();
    parameters(parameters, defaults);
    List<Statement> body = function("endmacro");
    return new Statement.MacroDefinition(signature(name, parameters, defaults), body, tag.line());
  }

  private Statement callBlock(Token tag) {
    List<String> parameters = new ArrayList<>();
    List<Expression> defaults = new ArrayList<>();
    if (current().operator("(")) {
      parameters(parameters, defaults);
    }
    Token at = current();
    if (!(expression() instanceof Expression.Call call)) {
      throw failure("a call of a macro expected after 'call'", at);
    }
    specialNames.push(new HashSet<>());
    List<Statement> body = function("endcall");
    return new Statement.CallBlock(
        signature("caller", parameters, defaults), call, body, tag.line());
  }

  /** Reads a body that becomes a function, so that an outer loop cannot be left from it. */
  private List<Statement> function(String end) {
    int outer = loops;
    loops = 0;
    List<Statement> body = bodyTo(end);
    loops = outer;
    return body;
  }

  private Signature signature(String name, List<String> parameters, List<Expression> defaults) {
    Set<String> used = specialNames.pop();
    if (!specialNames.isEmpty()) {
      specialNames.element().addAll(used);
    }
    return new Signature(
        name,
        parameters,
        defaults,
        used.contains("caller"),
        used.contains("varargs"),
        used.contains("kwargs"));
  }

  private void parameters(List<String> parameters, List<Expression> defaults) {
    expectOperator("(");
    while (!current().operator(")")) {
      if (!parameters.isEmpty()) {
        expectOperator(",");
      }
      Token at = current();
      String name = assignableName();
      if (parameters.contains(name)) {
        throw failure("duplicate parameter '" + name + "'", at);
      }
      parameters.add(name);
      if (skipOperator("=")) {
        defaults.add(expression());
      } else if (!defaults.isEmpty()) {
        throw failure("a parameter without a default follows one with a default", at);
      }
    }
    expectOperator(")");
  }

  private String assignableName() {
    Token token = expect(Kind.NAME);
    if (CONSTANTS.contains(token.value())) {
      throw failure("can't assign to '" + token.value() + "'", token);
    }
    return token.value();
  }

  private Target target(@Nullable String end, boolean namespaces) {
    List<Target> targets = new ArrayList<>();
    boolean several = false;
    while (true) {
      if (!targets.isEmpty()) {
        expectOperator(",");
      }
      Token token = current();
      boolean ended =
          token.kind() == Kind.VARIABLE_END
              || token.kind() == Kind.BLOCK_END
              || token.operator(")")
              || (end != null && token.name(end));
      if (ended) {
        break;
      }
      targets.add(oneTarget(namespaces));
      if (!current().operator(",")) {
        break;
      }
      several = true;
    }
    if (!several) {
      if (targets.isEmpty()) {
        throw failure("a name expected, got " + current().described(), current());
      }
      return targets.getFirst();
    }
    return new Target.Several(targets);
  }

  private Target oneTarget(boolean namespaces) {
    if (skipOperator("(")) {
      enter();
      Target inner = target(null, false);
      depth--;
      expectOperator(")");
      return inner;
    }
    String name = assignableName();
    if (namespaces && skipOperator(".")) {
      return new Target.NamespaceAttribute(name, expect(Kind.NAME).value());
    }
    return new Target.Variable(name);
  }

  // Expressions, loosest binding first

  /** An expression, or several with commas between them, which make a tuple. */
  private Expression tuple(boolean conditional, @Nullable String end) {
    return tuple(conditional, end, false);
  }

  private Expression tuple(boolean conditional, @Nullable String end, boolean parenthesized) {
    List<Expression> items = new ArrayList<>();
    boolean several = false;
    while (true) {
      if (!items.isEmpty()) {
        expectOperator(",");
      }
      Token token = current();
      boolean ended =
          token.kind() == Kind.VARIABLE_END
              || token.kind() == Kind.BLOCK_END
              || token.operator(")")
              || (end != null && token.name(end));
      if (ended) {
        break;
      }
      items.add(conditional ? expression() : or());
      if (!current().operator(",")) {
        break;
      }
      several = true;
    }
    if (!several) {
      if (!items.isEmpty()) {
        return items.getFirst();
      }
      if (!parenthesized) {
        throw failure("an expression expected, got " + current().described(), current());
      }
    }
    return new Expression.TupleLiteral(items);
  }

  private Expression expression() {
    enter();
    Expression result = or();
    while (skipName("if")) {
      Expression test = or();
      Expression otherwise = skipName("else") ? expression() : null;
      result = new Expression.Conditional(test, result, otherwise);
    }
    depth--;
    return result;
  }

  private Expression or() {
    Expression left = and();
    while (skipName("or")) {
      left = new Expression.Or(left, and());
    }
    return left;
  }

  private Expression and() {
    Expression left = not();
    while (skipName("and")) {
      left = new Expression.And(left, not());
    }
    return left;
  }

  private Expression not() {
    if (skipName("not")) {
      enter();
      Expression operand = not();
      depth--;
      return new Expression.Negated(operand);
    }
    return comparison();
  }

  private Expression comparison() {
    int line = current().line();
    List<Expression> operands = new ArrayList<>();
    List<String> operators = new ArrayList<>();
    operands.add(sum());
    while (true) {
      Token token = current();
      if (token.kind() == Kind.OPERATOR && COMPARISONS.contains(token.value())) {
        operators.add(take().value());
      } else if (skipName("in")) {
        operators.add("in");
      } else if (token.name("not") && tokens.get(next + 1).name("in")) {
        take();
        take();
        operators.add("not in");
      } else {
        break;
      }
      operands.add(sum());
    }
    return operators.isEmpty()
        ? operands.getFirst()
        : new Expression.Comparison(operands, operators, line);
  }

  private Expression sum() {
    Expression left = concatenation();
    while (current().operator("+") || current().operator("-")) {
      Token operator = take();
      left = new Expression.Binary(operator.value(), left, concatenation(), operator.line());
    }
    return left;
  }

  private Expression concatenation() {
    Expression first = product();
    if (!current().operator("~")) {
      return first;
    }
    List<Expression> parts = new ArrayList<>();
    parts.add(first);
    while (skipOperator("~")) {
      parts.add(product());
    }
    return new Expression.Concatenation(parts);
  }

  private Expression product() {
    Expression left = power();
    while (current().operator("*")
        || current().operator("/")
        || current().operator("//")
        || current().operator("%")) {
      Token operator = take();
      left = new Expression.Binary(operator.value(), left, power(), operator.line());
    }
    return left;
  }

  private Expression power() {
    Expression left = unary(true);
    while (current().operator("**")) {
      Token operator = take();
      left = new Expression.Binary("**", left, unary(true), operator.line());
    }
    return left;
  }

  private Expression unary(boolean filters) {
    enter();
    Expression result;
    if (skipOperator("-")) {
      result = new Expression.Minus(unary(false));
    } else if (skipOperator("+")) {
      result = new Expression.Plus(unary(false));
    } else {
      result = primary();
    }
    result = postfix(result);
    if (filters) {
      result = filters(result);
    }
    depth--;
    return result;
  }

  private Expression primary() {
    Token token = take();
    return switch (token.kind()) {
      case NAME -> name(token);
      case STRING -> {
        StringBuilder text = new StringBuilder(token.value());
        while (current().kind() == Kind.STRING) {
          text.append(take().value());
        }
        yield new Expression.Constant(text.toString());
      }
      case INTEGER -> new Expression.Constant(integer(token));
      case FLOAT -> new Expression.Constant(Double.valueOf(token.value()));
      case OPERATOR -> bracketed(token);
      default -> throw failure("an expression expected, got " + token.described(), token);
    };
  }

  private Expression name(Token token) {
    return switch (token.value()) {
      case "true", "True" -> new Expression.Constant(true);
      case "false", "False" -> new Expression.Constant(false);
      case "none", "None" -> new Expression.Constant(None.NONE);
      case "caller", "varargs", "kwargs" -> {
        if (!specialNames.isEmpty()) {
          specialNames.element().add(token.value());
        }
        yield new Expression.Name(token.value());
      }
      default -> new Expression.Name(token.value());
    };
  }

  private static BigInteger integer(Token token) {
    String digits = token.value();
    if (digits.length() > 4300) {
      throw failure("an integer of " + digits.length() + " digits; at most 4300", token);
    }
    int radix = 10;
    if (digits.length() > 1) {
      radix =
          switch (digits.substring(0, 2).toLowerCase(Locale.ROOT)) {
            case "0x" -> 16;
            case "0o" -> 8;
            case "0b" -> 2;
            default -> 10;
          };
    }
    try {
      return new BigInteger(radix == 10 ? digits : digits.substring(2), radix);
    } catch (NumberFormatException e) {
      throw failure("'" + digits + "' is not an integer", token);
    }
  }

  private Expression bracketed(Token token) {
    return switch (token.value()) {
      case "(" -> {
        Expression inner = tuple(true, null, true);
        expectOperator(")");
        yield inner;
      }
      case "[" -> new Expression.ListLiteral(items("]"));
      case "{" -> dict();
      default -> throw failure("an expression expected, got " + token.described(), token);
    };
  }

  private List<Expression> items(String end) {
    List<Expression> items = new ArrayList<>();
    while (!skipOperator(end)) {
      if (!items.isEmpty()) {
        expectOperator(",");
        if (skipOperator(end)) {
          break;
        }
      }
      items.add(expression());
    }
    return items;
  }

  private Expression dict() {
    List<Expression> keys = new ArrayList<>();
    List<Expression> values = new ArrayList<>();
    while (!skipOperator("}")) {
      if (!keys.isEmpty()) {
        expectOperator(",");
        if (skipOperator("}")) {
          break;
        }
      }
      keys.add(expression());
      expectOperator(":");
      values.add(expression());
    }
    return new Expression.DictLiteral(keys, values);
  }

  private Expression postfix(Expression target) {
    Expression result = target;
    while (true) {
      if (current().operator(".") || current().operator("[")) {
        result = subscript(result);
      } else if (current().operator("(")) {
        result = call(result);
      } else {
        return result;
      }
    }
  }

  private Expression filters(Expression input) {
    Expression result = input;
    while (true) {
      if (skipOperator("|")) {
        result = filter(result);
      } else if (current().name("is")) {
        result = test(result);
      } else if (current().operator("(")) {
        result = call(result);
      } else {
        return result;
      }
    }
  }

  private Expression subscript(Expression target) {
    Token token = take();
    if (token.operator(".")) {
      Token attribute = take();
      return switch (attribute.kind()) {
        case NAME -> new Expression.Attribute(target, attribute.value(), token.line());
        case INTEGER ->
            new Expression.Item(target, new Expression.Constant(integer(attribute)), token.line());
        default ->
            throw failure(
                "a name or number expected after '.', got " + attribute.described(), attribute);
      };
    }
    List<Expression> keys = new ArrayList<>();
    while (!skipOperator("]")) {
      if (!keys.isEmpty()) {
        expectOperator(",");
      }
      keys.add(sliceOrKey());
    }
    Expression key = keys.size() == 1 ? keys.getFirst() : new Expression.TupleLiteral(keys);
    return new Expression.Item(target, key, token.line());
  }

  private Expression sliceOrKey() {
    Expression start = null;
    if (!current().operator(":")) {
      start = expression();
      if (!current().operator(":")) {
        return start;
      }
    }
    take();
    Expression stop = sliceBound();
    Expression step = skipOperator(":") ? sliceBound() : null;
    return new Expression.Slice(start, stop, step);
  }

  private @Nullable Expression sliceBound() {
    boolean absent = current().operator(":") || current().operator("]") || current().operator(",");
    return absent ? null : expression();
  }

  private Expression call(Expression target) {
    int line = current().line();
    return new Expression.Call(target, arguments(), line);
  }

  private CallArguments arguments() {
    Token open = expectOperator("(");
    List<Expression> positional = new ArrayList<>();
    List<String> names = new ArrayList<>();
    List<Expression> named = new ArrayList<>();
    Expression sequence = null;
    Expression mapping = null;
    boolean first = true;
    while (!current().operator(")")) {
      if (!first) {
        expectOperator(",");
        if (current().operator(")")) {
          break;
        }
      }
      first = false;
      boolean legal;
      if (skipOperator("*")) {
        legal = sequence == null && mapping == null;
        sequence = expression();
      } else if (skipOperator("**")) {
        legal = mapping == null;
        mapping = expression();
      } else if (current().kind() == Kind.NAME && tokens.get(next + 1).operator("=")) {
        legal = mapping == null && !names.contains(current().value());
        names.add(take().value());
        take();
        named.add(expression());
      } else {
        legal = sequence == null && mapping == null && named.isEmpty();
        positional.add(expression());
      }
      if (!legal) {
        throw failure("these arguments cannot follow one another", open);
      }
    }
    expectOperator(")");
    return new CallArguments(positional, names, named, sequence, mapping);
  }

  private Expression.Filter filter(Expression.@Nullable Filter input) {
    return filter((Expression) input);
  }

  private Expression.Filter filter(@Nullable Expression input) {
    Token token = current();
    String name = dottedName();
    CallArguments arguments = current().operator("(") ? arguments() : CallArguments.NONE;
    return new Expression.Filter(input, name, arguments, token.line());
  }

  private Expression test(Expression input) {
    Token is = take();
    boolean negated = skipName("not");
    String name = dottedName();
    CallArguments arguments = CallArguments.NONE;
    Token token = current();
    if (token.operator("(")) {
      arguments = arguments();
    } else if (startsArgument(token)) {
      if (token.name("is")) {
        throw failure("tests cannot be chained with 'is'", token);
      }
      Expression argument = postfix(primary());
      arguments = new CallArguments(List.of(argument), List.of(), List.of(), null, null);
    }
    Expression test = new Expression.Test(input, name, arguments, is.line());
    return negated ? new Expression.Negated(test) : test;
  }

  private static boolean startsArgument(Token token) {
    return switch (token.kind()) {
      case NAME -> !(token.name("else") || token.name("or") || token.name("and"));
      case STRING, INTEGER, FLOAT -> true;
      case OPERATOR -> token.operator("[") || token.operator("{");
      default -> false;
    };
  }

  private String dottedName() {
    StringBuilder name = new StringBuilder(expect(Kind.NAME).value());
    while (skipOperator(".")) {
      name.append('.').append(expect(Kind.NAME).value());
    }
    return name.toString();
  }

  // Tokens

  private void enter() {
    if (++depth > MAX_DEPTH) {
      throw failure("nested more than " + MAX_DEPTH + " deep", current());
    }
  }

  private Token current() {
    return tokens.get(next);
  }

  private Token take() {
    Token token = tokens.get(next);
    if (token.kind() != Kind.END) {
      next++;
    }
    return token;
  }

  private boolean skipName(String name) {
    if (current().name(name)) {
      take();
      return true;
    }
    return false;
  }

  private boolean skipOperator(String operator) {
    if (current().operator(operator)) {
      take();
      return true;
    }
    return false;
  }

  private void expectName(String name) {
    if (!skipName(name)) {
      throw failure("'" + name + "' expected, got " + current().described(), current());
    }
  }

  private Token expectOperator(String operator) {
    if (!current().operator(operator)) {
      throw failure("'" + operator + "' expected, got " + current().described(), current());
    }
    return take();
  }

  private Token expect(Kind kind) {
    Token token = current();
    if (token.kind() != kind) {
      String expected =
          switch (kind) {
            case NAME -> "a name";
            case BLOCK_END -> "'%}'";
            case VARIABLE_END -> "'}}'";
            default -> kind.name();
          };
      throw failure(expected + " expected, got " + token.described(), token);
    }
    return take();
  }

  private static TemplateFailure failure(String message, Token at) {
    return Lexer.syntax(message, at.line(), at.column());
  }
}
