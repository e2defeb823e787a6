"""The two CSV files of Census-Income (KDD) flow in; train, test, fit and validation Parquet files flow out.

python build.py CSV_DIR OUT_DIR
"""

import json
import os
import sys

import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from pictures import smallest  # noqa: E402

ROW_GROUP = 25_000
# The order of the fields is that of UCI's census-income.names, and so are the names, with underscores and without
# apostrophes. What that file calls nominal is a category, and text here, codes included.
CATEGORY, WHOLE, REAL = pa.string(), pa.int64(), pa.float64()
COLUMNS = {
    "age": WHOLE,
    "class_of_worker": CATEGORY,
    "detailed_industry_recode": CATEGORY,
    "detailed_occupation_recode": CATEGORY,
    "education": CATEGORY,
    "wage_per_hour": WHOLE,
    "enroll_in_edu_inst_last_wk": CATEGORY,
    "marital_stat": CATEGORY,
    "major_industry_code": CATEGORY,
    "major_occupation_code": CATEGORY,
    "race": CATEGORY,
    "hispanic_origin": CATEGORY,
    "sex": CATEGORY,
    "member_of_a_labor_union": CATEGORY,
    "reason_for_unemployment": CATEGORY,
    "full_or_part_time_employment_stat": CATEGORY,
    "capital_gains": WHOLE,
    "capital_losses": WHOLE,
    "dividends_from_stocks": WHOLE,
    "tax_filer_stat": CATEGORY,
    "region_of_previous_residence": CATEGORY,
    "state_of_previous_residence": CATEGORY,
    "detailed_household_and_family_stat": CATEGORY,
    "detailed_household_summary_in_household": CATEGORY,
    "instance_weight": REAL,
    "migration_code_change_in_msa": CATEGORY,
    "migration_code_change_in_reg": CATEGORY,
    "migration_code_move_within_reg": CATEGORY,
    "live_in_this_house_1_year_ago": CATEGORY,
    "migration_prev_res_in_sunbelt": CATEGORY,
    "num_persons_worked_for_employer": WHOLE,
    "family_members_under_18": CATEGORY,
    "country_of_birth_father": CATEGORY,
    "country_of_birth_mother": CATEGORY,
    "country_of_birth_self": CATEGORY,
    "citizenship": CATEGORY,
    "own_business_or_self_employed": CATEGORY,
    "fill_inc_questionnaire_for_veterans_admin": CATEGORY,
    "veterans_benefits": CATEGORY,
    "weeks_worked_in_year": WHOLE,
    "year": CATEGORY,
    "label": WHOLE,
}
CLASSES = ["- 50000.", "50000+."]
MISSING = {"?", "NA"}
WEIGHT, LABEL = list(COLUMNS).index("instance_weight"), list(COLUMNS).index("label")


def read(folder: str, part: str, rows: int, duplicates: int) -> list[list[str]]:
    """The fields of each row. `duplicates`: how many have the features of an earlier one, by census-income.names."""
    with open(os.path.join(folder, f"census_income_1994_1995_{part}.csv"), encoding="ascii") as file:
        # Fields are separated by a comma and a blank, and some end in a blank of their own.
        table = [[field.strip() for field in line.split(", ")] for line in file]
    assert len(table) == rows and all(len(row) == len(COLUMNS) for row in table), "not the expected rows"
    assert {row[LABEL] for row in table} == set(CLASSES), "not the expected classes"
    assert rows - len({person(row) for row in table}) == duplicates, "not the expected duplicates"
    return table


def person(row: list[str]) -> bytes:
    """What a row says of a person: its features, without weight and label."""
    return "\t".join(field for i, field in enumerate(row) if i not in (WEIGHT, LABEL)).encode()


def value(field: str, column: int, type: pa.DataType):
    if column == LABEL:
        return CLASSES.index(field)
    if type == CATEGORY:
        return None if field in MISSING else field
    return float(field) if type == REAL else int(field)


def schema() -> pa.Schema:
    features = {
        name: {"dtype": {WHOLE: "int64", REAL: "float64"}.get(type, "string"), "_type": "Value"}
        for name, type in COLUMNS.items()
    }
    features["label"] = {"names": CLASSES, "_type": "ClassLabel"}
    return pa.schema(list(COLUMNS.items()), metadata={"huggingface": json.dumps({"info": {"features": features}})})


def write(path: str, rows: list[list[str]]) -> None:
    """Writes rows beside `path`, checks what a reader gets back, and renames."""
    columns = [pa.array([value(row[i], i, type) for row in rows], type) for i, type in enumerate(COLUMNS.values())]
    table = pa.table(columns, schema=schema())
    pq.write_table(table, path + ".part", row_group_size=ROW_GROUP, compression="snappy")
    back = pq.read_table(path + ".part")
    assert back.equals(table) and back.schema.equals(table.schema, check_metadata=True), path
    os.replace(path + ".part", path)
    positive = sum(table["label"].to_pylist())
    print(f"{path}: {len(rows)} rows, {positive} of class {CLASSES[1]!r}, {os.path.getsize(path)} bytes")


def main() -> None:
    source, out = sys.argv[1:]
    os.makedirs(out, exist_ok=True)
    train = read(source, "train", 199_523, 46_716)
    test = read(source, "test", 99_762, 20_936)
    validation = smallest(list(range(len(train))), [person(row) for row in train], len(train) // 6)
    for name, rows in {
        "train": train,
        "fit": [row for i, row in enumerate(train) if i not in validation],
        "validation": [train[i] for i in sorted(validation)],
        "test": test,
    }.items():
        write(os.path.join(out, f"{name}.parquet"), rows)


if __name__ == "__main__":
    main()
