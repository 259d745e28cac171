package dev.wardrobe;

import static com.tngtech.archunit.base.DescribedPredicate.describe;
import static com.tngtech.archunit.core.domain.JavaClass.Predicates.resideInAPackage;
import static com.tngtech.archunit.lang.conditions.ArchConditions.be;
import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.noClasses;
import static org.assertj.core.api.Assertions.assertThat;

import com.tngtech.archunit.base.DescribedPredicate;
import com.tngtech.archunit.core.domain.JavaCall;
import com.tngtech.archunit.core.domain.JavaClass;
import com.tngtech.archunit.core.domain.JavaClasses;
import com.tngtech.archunit.core.importer.ClassFileImporter;
import com.tngtech.archunit.core.importer.ImportOption;
import com.tngtech.archunit.lang.ArchRule;
import java.util.List;
import java.util.Locale;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** The rules that keep the packages in layers. */
final class ArchitectureTest {

  private static final String ROOT = "dev.wardrobe";
  private static final String VECTOR_API = "jdk.incubator.vector.";

  /** Lowest first: a package may use itself and what stands before it. */
  private static final List<String> LAYERS =
      List.of(
          "safetensors",
          "quant",
          "compute",
          "text",
          "grammar",
          "model",
          "adapter",
          "sampling",
          "engine",
          "telemetry",
          "tenant",
          "bench",
          "serve",
          "spi",
          "grpc",
          "http");

  /** Methods whose last bits the platform is free to choose. */
  private static final Set<String> TRANSCENDENTALS =
      Set.of(
          "sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh", "exp",
          "expm1", "log", "log10", "log1p", "pow", "cbrt", "hypot");

  private static final JavaClasses CLASSES =
      new ClassFileImporter()
          .withImportOption(ImportOption.Predefined.DO_NOT_INCLUDE_TESTS)
          .withImportOption(ImportOption.Predefined.DO_NOT_INCLUDE_JARS)
          .importPackages(ROOT)
          .that(describe("are written by hand", type -> !generated(type)));

  static List<String> layers() {
    return LAYERS;
  }

  @ParameterizedTest
  @MethodSource("layers")
  void layer_usesOnlyTheLayersBelow(String layer) {
    List<String> above = LAYERS.subList(LAYERS.indexOf(layer) + 1, LAYERS.size());
    check(
        noClasses()
            .that(inLayer(layer))
            .should()
            .dependOnClassesThat(
                describe(
                    "lie in a layer above or in the root",
                    type -> root(type) || above.stream().anyMatch(l -> inLayer(l).test(type)))));
  }

  @Test
  void everyClass_liesInALayer() {
    check(
        noClasses()
            .should(
                be(
                    describe(
                        "outside the layers " + LAYERS,
                        type ->
                            !root(type)
                                && LAYERS.stream().noneMatch(l -> inLayer(l).test(type))))));
  }

  @Test
  void vectorApi_isImportedByTheCpuBackendAlone() {
    check(
        noClasses()
            .that()
            .resideOutsideOfPackage(ROOT + ".compute.cpu..")
            .should()
            .dependOnClassesThat(resideInAPackage("jdk.incubator..")));
  }

  @Test
  void jcuda_isImportedByTheCudaBackendAlone() {
    check(
        noClasses()
            .that()
            .resideOutsideOfPackage(ROOT + ".compute.cuda..")
            .should()
            .dependOnClassesThat(resideInAPackage("jcuda..")));
  }

  @Test
  void kernels_callNoLibraryTranscendentals() {
    check(
        noClasses()
            .that()
            .resideInAPackage(ROOT + ".compute..")
            .should()
            .callMethodWhere(
                describe(
                    "the target is a transcendental of java.lang.Math",
                    ArchitectureTest::inexact)));
  }

  @Test
  void kernels_callNoVectorTranscendentals() {
    check(
        noClasses()
            .should()
            .accessFieldWhere(
                describe(
                    "the target is a transcendental of the Vector API",
                    access ->
                        access.getTargetOwner().getName().equals(VECTOR_API + "VectorOperators")
                            && TRANSCENDENTALS.contains(
                                access.getName().toLowerCase(Locale.ROOT)))));
  }

  @Test
  void kernels_reduceFloatsInAnOrderOfTheirOwn() {
    Set<String> owners = Set.of(VECTOR_API + "FloatVector", VECTOR_API + "DoubleVector");
    check(
        noClasses()
            .should()
            .callMethodWhere(
                describe(
                    "the target reduces the lanes of a floating-point vector",
                    call ->
                        owners.contains(call.getTargetOwner().getName())
                            && call.getName().startsWith("reduceLanes"))));
  }

  @Test
  void names_sayWhatAThingIs() {
    check(
        noClasses()
            .should()
            .haveNameMatching(".*([.$]Abstract[^.]*|(Manager|Helper|Utils?|Impl)(\\$.*)?)"));
  }

  @Test
  void classes_areSeen() {
    assertThat(CLASSES.contain(Main.class)).isTrue();
  }

  private static boolean inexact(JavaCall<?> call) {
    return call.getTargetOwner().isEquivalentTo(Math.class)
        && TRANSCENDENTALS.contains(call.getName());
  }

  private static boolean generated(JavaClass type) {
    return type.getPackageName().startsWith(ROOT + ".v1");
  }

  private static boolean root(JavaClass type) {
    return type.getPackageName().equals(ROOT);
  }

  private static DescribedPredicate<JavaClass> inLayer(String layer) {
    return resideInAPackage(ROOT + "." + layer + "..");
  }

  private static void check(ArchRule rule) {
    rule.allowEmptyShould(true).check(CLASSES);
  }
}
