"""The usual names of columns in what competitions hand out, the likeliest first; `squash_name` compares them."""

ID_COLUMNS = (
    *("image_id", "id", "posting_id", "image", "image_name", "file_name", "file", "path", "image_path", "file_path"),
    *("image_file", "img"),
)
FILE_COLUMNS = ("image_path", "file_path", "image_file", "file_name", "file", "path", "image_name", "image", "img")
LABEL_COLUMNS = (
    *("label", "class", "class_id", "label_group", "category_id", "category", "target", "product_id", "labels"),
    *("class_name", "category_name", "label_name", "sku", "product"),
)
TITLE_COLUMNS = ("title", "name", "product_title")
